//! Reads PostgreSQL's binary COPY format out of a buffer, borrowing every field. Never panics,
//! whatever the bytes are.
//!
//! The format: a signature of 11 bytes, flags, an extension area, then *tuples*, each a count of
//! fields and per field its length and bytes (length -1: null), at last a count of -1.
//! <https://www.postgresql.org/docs/current/sql-copy.html#SQL-COPY-FILE-FORMATS>

use domain::ids::Timestamp;

/// What every binary COPY begins with.
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";

/// Microseconds from 1970 to 2000, where PostgreSQL's timestamps begin.
const EPOCH_2000: i64 = 946_684_800_000_000;

/// Why bytes cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

/// Tuples in a buffer.
#[derive(Debug, Clone)]
pub(crate) struct Tuples<'a> {
    rest: &'a [u8],
}

/// The fields of a tuple, in order.
#[derive(Debug, Clone)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
    left: u16,
}

impl<'a> Tuples<'a> {
    /// Begins behind the header.
    pub(crate) fn new(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut rest = bytes.strip_prefix(SIGNATURE).ok_or(Malformed("signature"))?;
        let flags = u32::from_be_bytes(take(&mut rest)?);
        // The upper half marks what a reader must know of, such as the oids of old.
        if flags >> 16 != 0 {
            return Err(Malformed("flags"));
        }
        let extension = length(u32::from_be_bytes(take(&mut rest)?))?;
        rest = rest.get(extension..).ok_or(Malformed("header"))?;
        Ok(Self { rest })
    }

    /// Begins in the middle, with a tuple.
    pub(crate) fn headless(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next tuple; `None` behind the last.
    pub(crate) fn next_tuple(&mut self) -> Result<Option<Fields<'a>>, Malformed> {
        let count = i16::from_be_bytes(take(&mut self.rest)?);
        if count == -1 {
            return if self.rest.is_empty() { Ok(None) } else { Err(Malformed("trailer")) };
        }
        let left = u16::try_from(count).map_err(|_| Malformed("count of fields"))?;
        let fields = Fields { rest: self.rest, left };
        let mut all = fields.clone();
        while all.left > 0 {
            all.next_field()?;
        }
        self.rest = all.rest;
        Ok(Some(fields))
    }
}

impl<'a> Fields<'a> {
    /// How many are left.
    pub(crate) fn left(&self) -> u16 {
        self.left
    }

    /// The bytes of the next field; `None`: null.
    fn next_field(&mut self) -> Result<Option<&'a [u8]>, Malformed> {
        self.left = self.left.checked_sub(1).ok_or(Malformed("too few fields"))?;
        let length = i32::from_be_bytes(take(&mut self.rest)?);
        if length == -1 {
            return Ok(None);
        }
        let length = usize::try_from(length).map_err(|_| Malformed("length of a field"))?;
        let (field, rest) = self.rest.split_at_checked(length).ok_or(Malformed("end"))?;
        self.rest = rest;
        Ok(Some(field))
    }

    /// The bytes of the next field.
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        self.next_field()?.ok_or(Malformed("null"))
    }

    /// The next field, a text.
    pub(crate) fn text(&mut self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed("encoding"))
    }

    /// The next field, a bigint.
    pub(crate) fn bigint(&mut self) -> Result<i64, Malformed> {
        Ok(i64::from_be_bytes(self.exactly()?))
    }

    /// The next field, a smallint.
    pub(crate) fn smallint(&mut self) -> Result<i16, Malformed> {
        Ok(i16::from_be_bytes(self.exactly()?))
    }

    /// The next field, a timestamptz.
    pub(crate) fn timestamp(&mut self) -> Result<Timestamp, Malformed> {
        let micros = self.bigint()?.checked_add(EPOCH_2000).ok_or(Malformed("time"))?;
        Timestamp::from_timestamp_micros(micros).ok_or(Malformed("time"))
    }

    fn exactly<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.bytes()?.try_into().map_err(|_| Malformed("length of a number"))
    }
}

/// Takes the next `N` bytes.
fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Malformed> {
    let (taken, after) = rest.split_first_chunk().ok_or(Malformed("end"))?;
    *rest = after;
    Ok(*taken)
}

fn length(length: u32) -> Result<usize, Malformed> {
    usize::try_from(length).map_err(|_| Malformed("length"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encode(tuples: &[Vec<Option<Vec<u8>>>]) -> Vec<u8> {
        let mut bytes = [SIGNATURE, &[0; 8]].concat();
        for fields in tuples {
            bytes.extend(i16::try_from(fields.len()).unwrap().to_be_bytes());
            for field in fields {
                let length = field.as_ref().map_or(-1, |f| i32::try_from(f.len()).unwrap());
                bytes.extend(length.to_be_bytes());
                bytes.extend(field.iter().flatten());
            }
        }
        bytes.extend((-1_i16).to_be_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Vec<Vec<Option<Vec<u8>>>>, Malformed> {
        let mut tuples = Tuples::new(bytes)?;
        let mut decoded = Vec::new();
        while let Some(mut fields) = tuples.next_tuple()? {
            let mut row = Vec::new();
            while fields.left() > 0 {
                row.push(fields.next_field()?.map(<[u8]>::to_vec));
            }
            decoded.push(row);
        }
        Ok(decoded)
    }

    fn arb_tuples() -> impl Strategy<Value = Vec<Vec<Option<Vec<u8>>>>> {
        let field = prop::option::of(prop::collection::vec(any::<u8>(), 0..20));
        prop::collection::vec(prop::collection::vec(field, 0..6), 0..6)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(tuples in arb_tuples()) {
            prop_assert_eq!(decode(&encode(&tuples)), Ok(tuples));
        }

        #[test]
        fn damaged_bytes_are_refused_or_read_and_never_panic(
            tuples in arb_tuples(),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = encode(&tuples);
            for (at, byte) in damage {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let _ = decode(&bytes);
            bytes.truncate(cut.index(bytes.len()));
            let _ = decode(&bytes);
        }

        #[test]
        fn any_bytes_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = decode(&bytes);
            let _ = decode(&[SIGNATURE, &[0; 8], &bytes].concat());
        }

        #[test]
        fn a_cut_is_never_taken_for_the_end(tuples in arb_tuples(), cut in any::<prop::sample::Index>()) {
            let bytes = encode(&tuples);
            prop_assert!(decode(&bytes[..cut.index(bytes.len())]).is_err());
        }

        #[test]
        fn numbers_and_times_of_any_value_are_read_or_refused(number in any::<i64>()) {
            let bytes = encode(&[vec![Some(number.to_be_bytes().to_vec()); 2]]);
            let mut fields = Tuples::new(&bytes).unwrap().next_tuple().unwrap().unwrap();
            prop_assert_eq!(fields.bigint(), Ok(number));
            if let Ok(time) = fields.timestamp() {
                prop_assert_eq!(time.timestamp_micros(), number + EPOCH_2000);
            }
        }
    }

    #[test]
    fn another_format_is_refused() {
        assert!(Tuples::new(b"1\t2\n").is_err());
        let mut oids = encode(&[]);
        oids[12] = 1;
        assert_eq!(Tuples::new(&oids).err(), Some(Malformed("flags")));
        let more = [encode(&[]), vec![0]].concat();
        assert_eq!(decode(&more), Err(Malformed("trailer")));
        let short = encode(&[vec![Some(vec![1, 2, 3])]]);
        let mut fields = Tuples::new(&short).unwrap().next_tuple().unwrap().unwrap();
        assert_eq!(fields.bigint(), Err(Malformed("length of a number")));
        assert_eq!(fields.bytes(), Err(Malformed("too few fields")));
    }
}
