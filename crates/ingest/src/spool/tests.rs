//! The spool's files: written whole or not at all, read as far as they are whole.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use domain::event::NewEvent;
use domain::ids::{Subject, Timestamp};
use domain::slice::SliceCount;
use proptest::prelude::*;
use serde_json::json;
use tempfile::TempDir;
use uuid::Uuid;

use super::disk::Fault;
use super::file::{HEADER, header, scan};
use super::record::{self, Frozen};
use super::{Config, Known, NotSpooled, Place, Spool, SpoolDir};
use crate::testing::lock;
use crate::{Error, Metrics};

fn known() -> Known {
    Known { installation: Uuid::from_u128(7), slices: SliceCount::DEFAULT }
}

fn event(payload: &[u8]) -> NewEvent {
    NewEvent {
        event_id: Uuid::now_v7(),
        subject: Subject::from_stored("a/stream/1".to_owned()),
        event_type: "WebhookReceived".to_owned(),
        schema_version: 1,
        key: Some(Uuid::from_u128(1)),
        received_at: Timestamp::from_timestamp_micros(1_700_000_000_123_456).unwrap(),
        causation_id: None,
        correlation_id: Some(Uuid::from_u128(2)),
        meta: Some(json!({"bytes": 3}).into()),
        payload: payload.to_vec(),
    }
}

fn frozen(n: u8) -> Frozen {
    let bare = NewEvent { key: None, correlation_id: None, meta: None, ..event(b"") };
    Frozen { slice: 2, id: Uuid::now_v7(), events: vec![event(&[n; 300]), bare] }
}

/// Opens the spool of a directory.
fn open(config: &Config) -> Spool {
    lock(config).open(known(), Arc::new(Metrics::new())).unwrap()
}

fn files(dir: &TempDir, end: &str) -> Vec<PathBuf> {
    let paths = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = paths.filter(|p| p.to_string_lossy().ends_with(end)).collect();
    paths.sort();
    paths
}

async fn write(spool: &Spool, batch: &Frozen) -> Result<Place, NotSpooled> {
    spool.write(batch.slice, batch.id, &batch.events).await
}

/// What is left for slice 2, read.
async fn left(spool: &Spool) -> Vec<Option<Frozen>> {
    let mut read = Vec::new();
    for place in spool.take_left(&[2]) {
        read.push(spool.read(place).await.unwrap());
    }
    read
}

/// A directory with one file of three batches, as a process that was killed leaves it.
async fn three() -> (TempDir, Vec<Frozen>, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let batches = vec![frozen(1), frozen(2), frozen(3)];
    let spool = open(&Config::new(dir.path()));
    for batch in &batches {
        write(&spool, batch).await.unwrap();
    }
    drop(spool);
    let [file] = &files(&dir, ".spool")[..] else { panic!("one file") };
    let file = file.clone();
    (dir, batches, file)
}

#[tokio::test]
async fn what_a_process_left_is_read_by_the_next_in_order() {
    let (dir, batches, _) = three().await;
    for _ in 0..2 {
        // Nothing is released, so it is there again and again.
        let spool = open(&Config::new(dir.path()));
        assert_eq!(left(&spool).await, batches.iter().cloned().map(Some).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn what_is_left_of_the_slices_of_a_lane_comes_as_it_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(&Config::new(dir.path()));
    let (one, two) = (Uuid::now_v7(), Uuid::now_v7());
    for (slice, id) in [(2, one), (5, one), (2, two), (4, two)] {
        write(&spool, &Frozen { slice, id, ..frozen(1) }).await.unwrap();
    }
    drop(spool);
    let spool = open(&Config::new(dir.path()));
    let mut found = Vec::new();
    for place in spool.take_left(&[2, 4, 5]) {
        let read = spool.read(place).await.unwrap().unwrap();
        found.push((read.slice, read.id));
    }
    assert_eq!(found, [(2, one), (5, one), (2, two), (4, two)], "a batch stays together");
    assert!(spool.take_left(&[2, 4, 5]).is_empty());
}

#[tokio::test]
async fn a_torn_last_record_is_passed_over_wherever_it_is_torn_and_kept_for_a_while() {
    let (dir, batches, file) = three().await;
    let bytes = fs::read(&file).unwrap();
    let last = bytes.len()
        - usize::try_from(record::size(&record::body(2, batches[2].id, &batches[2].events)))
            .unwrap();
    for end in [last + 1, last + 9, last + 17, bytes.len() - 1] {
        fs::write(&file, &bytes[..end]).unwrap();
        let spool = open(&Config::new(dir.path()));
        assert_eq!(left(&spool).await.len(), 2, "torn at {end}");
        assert_eq!(fs::read(&file).unwrap().len(), end, "nothing of it is destroyed");
        spool.release(1, 2).await;
        until(|| files(&dir, ".spool").is_empty()).await;
        let [aside] = &files(&dir, ".torn")[..] else { panic!("one file aside") };
        assert_eq!(fs::read(aside).unwrap(), bytes[..end]);
        fs::remove_file(aside).unwrap();
    }
}

#[tokio::test]
async fn what_is_written_after_a_torn_record_is_in_a_file_of_its_own() {
    let (dir, batches, file) = three().await;
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();
    let spool = open(&Config::new(dir.path()));
    write(&spool, &batches[2]).await.unwrap();
    drop(spool);
    let spool = open(&Config::new(dir.path()));
    assert_eq!(left(&spool).await, batches.into_iter().map(Some).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_file_of_nothing_but_a_torn_record_is_kept_for_a_while() {
    let (dir, _, file) = three().await;
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..HEADER + 20]).unwrap();
    let spool = open(&Config::new(dir.path()));
    assert!(left(&spool).await.is_empty());
    assert_eq!((files(&dir, ".spool").len(), files(&dir, ".torn").len()), (0, 1));
}

#[tokio::test]
async fn a_file_that_could_not_be_synced_goes_and_takes_no_room() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { max_bytes: 3000, ..Config::new(dir.path()) };
    let spool = open(&config);
    for fault in [Fault::Sync, Fault::Write, Fault::WriteAndCut] {
        config.faults.set(Some(fault));
        for _ in 0..20 {
            let error = write(&spool, &frozen(1)).await.unwrap_err();
            assert!(matches!(error, NotSpooled::Disk(_)), "{fault:?}: {error}");
        }
        assert!(spool.is_failing());
        assert!(files(&dir, ".spool").len() <= 1, "{fault:?}");
        config.faults.set(None);
        let place = write(&spool, &frozen(2)).await.unwrap();
        assert!(!spool.is_failing());
        assert!(spool.read(place).await.unwrap().is_some());
        spool.release(place.file(), 1).await;
        until(|| files(&dir, ".spool").is_empty()).await;
    }
}

#[tokio::test]
async fn what_was_kept_before_a_failed_sync_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config::new(dir.path());
    let spool = open(&config);
    let kept = [frozen(1), frozen(2)];
    write(&spool, &kept[0]).await.unwrap();
    config.faults.set(Some(Fault::Sync));
    write(&spool, &frozen(9)).await.unwrap_err();
    config.faults.set(None);
    let place = write(&spool, &kept[1]).await.unwrap();
    assert_eq!(place.file(), 2, "nothing more goes into a file that could not be synced");
    spool.release(1, 1).await;
    until(|| files(&dir, ".spool").len() == 1).await;
    assert_eq!(spool.read(place).await.unwrap().as_ref(), Some(&kept[1]));
}

#[tokio::test]
async fn a_damaged_file_is_not_replaced_by_a_later_one() {
    let (dir, ..) = three().await;
    for n in 1..=3_u8 {
        let [file] = &files(&dir, ".spool")[..] else { panic!("one file") };
        let mut bytes = fs::read(file).unwrap();
        bytes[HEADER + 100] ^= n;
        fs::write(file, &bytes).unwrap();
        let spool = open(&Config::new(dir.path()));
        let place = spool.take_left(&[2]).pop_front().unwrap();
        spool.release(place.file(), 2).await;
        until(|| files(&dir, ".damaged").len() == usize::from(n)).await;
        // Another process, another file.
        drop(spool);
        let spool = open(&Config::new(dir.path()));
        for batch in 1..=3 {
            write(&spool, &frozen(batch)).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_file_without_a_whole_header_held_nothing() {
    let (dir, _, file) = three().await;
    fs::write(&file, b"TLSPOOL1").unwrap();
    let spool = open(&Config::new(dir.path()));
    assert!(left(&spool).await.is_empty());
    assert!(files(&dir, ".spool").is_empty());
}

#[tokio::test]
async fn a_damaged_file_gives_what_is_whole_and_is_kept() {
    let (dir, batches, file) = three().await;
    let whole = fs::read(&file).unwrap();
    let first = HEADER + 100;
    // In a body, in the length of a record, in the header.
    for (at, readable) in [(first, 2), (HEADER + 9, 2), (9, 3)] {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x40;
        fs::write(&file, &bytes).unwrap();
        let spool = open(&Config::new(dir.path()));
        let expected: Vec<_> = batches.iter().skip(3 - readable).cloned().map(Some).collect();
        assert_eq!(left(&spool).await, expected, "byte {at}");
        assert!(file.exists(), "it is drained from under its own name");
        spool.release(1, readable as u64).await;
        until(|| files(&dir, ".damaged").len() == 1).await;
        let [aside] = &files(&dir, ".damaged")[..] else { panic!("one file aside") };
        assert_eq!(fs::read(aside).unwrap(), bytes);
        fs::remove_file(aside).unwrap();
    }
}

#[tokio::test]
async fn a_file_goes_with_its_last_record_and_not_before() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { file_bytes: 1, ..Config::new(dir.path()) };
    let spool = open(&config);
    for n in 0..3 {
        write(&spool, &frozen(n)).await.unwrap();
    }
    assert_eq!(files(&dir, ".spool").len(), 3, "one record reaches the length of a file");
    spool.release(2, 1).await;
    until(|| files(&dir, ".spool").len() == 2).await;
    assert!(files(&dir, "1.spool").len() == 1 && files(&dir, "3.spool").len() == 1);
}

#[tokio::test]
async fn a_full_spool_refuses_and_takes_again_once_it_is_drained() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(&Config { max_bytes: 2000, ..Config::new(dir.path()) });
    let mut taken = 0;
    while write(&spool, &frozen(1)).await.is_ok() {
        taken += 1;
    }
    assert!(taken > 0);
    assert!(matches!(write(&spool, &frozen(1)).await, Err(NotSpooled::Full)));
    assert!(spool.is_failing());
    spool.release(1, taken).await;
    write(&spool, &frozen(1)).await.unwrap();
    assert!(!spool.is_failing());
}

#[tokio::test]
async fn a_directory_that_goes_away_is_an_error_and_not_a_loss() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(&Config::new(dir.path().join("spool")));
    fs::remove_dir_all(dir.path().join("spool")).unwrap();
    assert!(matches!(write(&spool, &frozen(1)).await, Err(NotSpooled::Disk(_))));
    assert!(spool.is_failing());
    fs::create_dir(dir.path().join("spool")).unwrap();
    write(&spool, &frozen(1)).await.unwrap();
    assert!(!spool.is_failing());
}

#[tokio::test]
async fn two_processes_never_share_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let _first = open(&Config::new(dir.path()));
    let error = SpoolDir::lock(Config::new(dir.path())).unwrap_err();
    assert!(matches!(error, Error::SpoolTaken { .. }), "{error}");
    assert!(error.to_string().contains("ingest.spool_dir"), "{error}");
}

#[tokio::test]
async fn the_spool_of_another_installation_is_not_drained() {
    let (dir, _, _) = three().await;
    let spool = open(&Config::new(dir.path()));
    drop(spool);
    let other = Known { installation: Uuid::from_u128(8), ..known() };
    let locked = lock(&Config::new(dir.path()));
    assert_eq!(locked.known(), Some(known()), "it is noted whose spool it is");
    let error = locked.open(other, Arc::new(Metrics::new())).unwrap_err();
    assert!(matches!(error, Error::SpoolOfAnother { .. }), "{error}");
    assert_eq!(lock(&Config::new(dir.path())).known(), Some(known()));
}

/// Waits until `holds`, and fails after half a minute.
async fn until(holds: impl Fn() -> bool) {
    crate::testing::eventually(async || holds()).await;
}

fn batches() -> impl Strategy<Value = Vec<Frozen>> {
    let payload = proptest::collection::vec(any::<u8>(), 0..200);
    let events = proptest::collection::vec(payload, 0..4);
    let batch = (0..16_i16, any::<u128>(), events).prop_map(|(slice, id, payloads)| Frozen {
        slice,
        id: Uuid::from_u128(id),
        events: payloads.iter().map(|payload| event(payload)).collect(),
    });
    proptest::collection::vec(batch, 0..6)
}

/// The bytes of a file of these batches.
fn file_of(batches: &[Frozen]) -> Vec<u8> {
    let mut bytes = header(known(), *b"\x01marker\x02");
    for batch in batches {
        let body = record::body(batch.slice, batch.id, &batch.events);
        record::put(&mut bytes, *b"\x01marker\x02", &body);
    }
    bytes
}

/// The batches that are found in a file.
fn found(bytes: &[u8]) -> Vec<Frozen> {
    let records = scan(1, bytes, known()).map(|scan| scan.records).unwrap_or_default();
    let at = |place: &Place| usize::try_from(place.offset).unwrap();
    let read = |p: Place| record::read(&bytes[at(&p)..at(&p) + p.length], p.marker).unwrap();
    records.into_iter().map(read).collect()
}

proptest! {
    #[test]
    fn a_file_reads_as_it_was_written(batches in batches()) {
        prop_assert_eq!(found(&file_of(&batches)), batches);
    }

    #[test]
    fn a_file_cut_anywhere_gives_the_batches_before(batches in batches(), cut in any::<proptest::sample::Index>()) {
        let bytes = file_of(&batches);
        let cut = cut.index(bytes.len() + 1);
        let whole = (0..=batches.len()).rev().find(|n| file_of(&batches[..*n]).len() <= cut);
        prop_assert_eq!(found(&bytes[..cut]), batches[..whole.unwrap_or(0)].to_vec());
    }

    #[test]
    fn one_changed_byte_costs_one_batch_at_most(batches in batches(), at in any::<proptest::sample::Index>(), by in 1..=255_u8) {
        let mut bytes = file_of(&batches);
        let at = at.index(bytes.len());
        bytes[at] ^= by;
        let found = found(&bytes);
        // A change of the installation that its checksum misses is another's file; none is found.
        prop_assert!(found.len() + 1 >= batches.len(), "{} of {}", found.len(), batches.len());
        prop_assert!(found.iter().all(|batch| batches.contains(batch)));
    }

    #[test]
    fn no_bytes_that_follow_cost_an_intact_batch(batches in batches(), garbage in proptest::collection::vec(any::<u8>(), 0..300), has_marker in any::<bool>()) {
        let mut bytes = file_of(&batches);
        if has_marker {
            // As a record that goes on otherwise.
            bytes.extend(b"\x01marker\x02");
        }
        bytes.extend(garbage);
        prop_assert_eq!(found(&bytes), batches);
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), keep in 0..60_usize) {
        let mut file = file_of(&[]);
        file.truncate(keep);
        file.extend(bytes);
        let _ = found(&file);
    }
}
