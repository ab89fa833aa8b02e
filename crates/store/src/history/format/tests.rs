//! The format gives back what was put in, and nothing else panics.

use domain::ids::Timestamp;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;

fn time() -> impl Strategy<Value = Timestamp> {
    (0_i64..4_000_000_000_000_000).prop_map(|n| Timestamp::from_timestamp_micros(n).unwrap())
}

fn record() -> impl Strategy<Value = Record> {
    let id = || any::<u128>().prop_map(Uuid::from_u128);
    let ids = (id(), prop::option::of(id()), prop::option::of(id()));
    let meta = prop::option::of(Just(r#"{"b":1, "a":1.50}"#.to_owned()));
    (time(), time(), ids, "[a-c]{1,2}", ".{0,20}", any::<i16>(), meta, any::<Vec<u8>>()).prop_map(
        |(recorded_at, received_at, ids, subject, event_type, schema_version, meta, payload)| {
            Record {
                position: 0,
                recorded_at,
                received_at,
                event_id: ids.0,
                subject,
                event_type,
                schema_version,
                causation_id: ids.1,
                correlation_id: ids.2,
                meta,
                payload,
            }
        },
    )
}

fn records(first: i64) -> impl Strategy<Value = Vec<Record>> {
    prop::collection::vec(record(), 1..40).prop_map(move |mut records| {
        for (record, position) in records.iter_mut().zip(first..) {
            record.position = position;
        }
        records
    })
}

/// Writes records with a block after every third.
fn write(records: &[Record]) -> Vec<u8> {
    let mut writer = Writer::new(3, Uuid::nil());
    for (n, record) in records.iter().enumerate() {
        writer.push(record).unwrap();
        if n % 3 == 2 {
            writer.close_block(record.position).unwrap();
        }
    }
    writer.finish().unwrap().unwrap().1
}

fn read(file: &[u8], blocks: &[Block]) -> Result<Vec<Record>, Damage> {
    let mut records = Vec::new();
    for block in blocks {
        records.extend(block.decode_events(part(file, &block.range())?)?);
    }
    Ok(records)
}

proptest! {
    #[test]
    fn what_is_written_is_read(written in records(41)) {
        let file = write(&written);
        let index = open(&file).unwrap();
        prop_assert_eq!(index.header.from, 41);
        prop_assert_eq!(index.header.count(), written.len() as u64);
        prop_assert_eq!(read(&file, &index.blocks).unwrap(), written);
    }

    #[test]
    fn a_position_is_found_without_the_blocks_before_it(written in records(1), after in 0_i64..50) {
        let file = write(&written);
        let index = open(&file).unwrap();
        let blocks = index.blocks_after(after);
        let found = read(&file, blocks).unwrap();
        prop_assert!(blocks.first().is_none_or(|block| block.last() > after));
        let wanted = written.iter().filter(|record| record.position > after);
        prop_assert!(wanted.eq(found.iter().filter(|record| record.position > after)));
    }

    #[test]
    fn every_event_of_a_subject_is_in_its_blocks(written in records(1), subject in "[a-c]{1,2}") {
        let file = write(&written);
        let index = open(&file).unwrap();
        let found = read(&file, &index.blocks_of(&subject, 0)).unwrap();
        let wanted = written.iter().filter(|record| record.subject == subject);
        prop_assert!(wanted.eq(found.iter().filter(|record| record.subject == subject)));
    }

    #[test]
    fn no_changed_byte_goes_unnoticed(written in records(1), at in any::<prop::sample::Index>(), bit in 0_u32..8) {
        let file = write(&written);
        let mut changed = file.clone();
        let at = at.index(file.len());
        changed[at] ^= 1_u8 << bit;
        let same = open(&changed).and_then(|index| read(&changed, &index.blocks));
        prop_assert!(same.is_err(), "byte {at} of {}", file.len());
    }

    #[test]
    fn a_cut_file_is_damage(written in records(1), keep in any::<prop::sample::Index>()) {
        let file = write(&written);
        prop_assert!(open(&file[..keep.index(file.len())]).is_err());
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in any::<Vec<u8>>()) {
        prop_assert!(open(&bytes).is_err());
        let _ = Record::decode(&mut Bytes(&bytes), 1);
        let block = Block {
            first: 1,
            count: 3,
            offset: 0,
            length: 0,
            raw_length: 100,
            crc: crc32c::crc32c(&bytes),
        };
        prop_assert!(block.decode_events(&bytes).is_err());
    }
}

#[test]
fn events_out_of_order_are_refused() {
    let mut writer = Writer::new(0, Uuid::nil());
    let mut record = Record {
        position: 5,
        recorded_at: Timestamp::UNIX_EPOCH,
        received_at: Timestamp::UNIX_EPOCH,
        event_id: Uuid::nil(),
        subject: "s".to_owned(),
        event_type: "T".to_owned(),
        schema_version: 1,
        causation_id: None,
        correlation_id: None,
        meta: None,
        payload: Vec::new(),
    };
    writer.push(&record).unwrap();
    assert!(writer.push(&record).is_err(), "twice");
    record.position = 7;
    assert!(writer.push(&record).is_err(), "one left out");
}

/// The layout is for ever: these bytes must be read by every later build.
#[test]
fn the_first_version_stays_readable() {
    let file = include_bytes!("../../../tests/fixtures/version-1.tlseg");
    let index = open(file).unwrap();
    assert_eq!((index.header.slice, index.header.from, index.header.to), (3, 41, 43));
    let records = read(file, &index.blocks).unwrap();
    assert_eq!(records[2].payload, b"{\"n\":3}");
    assert_eq!(records[0].meta.as_deref(), Some(r#"{"b":1, "a":1.50}"#));
    assert_eq!(index.blocks_of("gcore-main/stream/320423", 0).len(), 1);
}
