//! Webhooks of live streams in the platform's present form, about 400 bytes each, no two alike.

use domain::ids::{LiveStreamId, Subject};
use domain::slice::SliceCount;

/// Live streams per slice: with 16 slices there are 1,024.
const PER_SLICE: usize = 64;

/// The first live stream's id is above this.
const FIRST_STREAM: i64 = 1_000_000;

/// Webhooks of a fixed set of live streams.
#[derive(Debug, Clone)]
pub(crate) struct Webhooks {
    streams: Vec<i64>,
}

impl Webhooks {
    /// Webhooks of live streams of `source`, of which every slice has the same number.
    pub(crate) fn of(source: &str, slices: SliceCount) -> Self {
        let mut left = vec![PER_SLICE; usize::from(slices.get().unsigned_abs())];
        let mut missing = PER_SLICE * left.len();
        let mut streams = Vec::with_capacity(missing);
        let mut id = FIRST_STREAM;
        while missing > 0 {
            id += 1;
            let slice = slices.slice_of(&Subject::live_stream(source, LiveStreamId(id)));
            if let Some(left) = left.get_mut(usize::from(slice.unsigned_abs())).filter(|n| **n > 0)
            {
                *left -= 1;
                missing -= 1;
                streams.push(id);
            }
        }
        Self { streams }
    }

    /// The live stream of the `n`th webhook: scattered, as senders do not take turns.
    pub(crate) fn stream(&self, n: u64) -> i64 {
        // Fibonacci hashing: consecutive numbers land far apart and equally often everywhere.
        let scattered = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        let at = usize::try_from(scattered).unwrap_or_default() % self.streams.len();
        self.streams[at]
    }

    /// Writes the `n`th webhook's body. `n` stands in the key of its ownership tag.
    pub(crate) fn write(&self, n: u64, to: &mut Vec<u8>) {
        let (stream, live) = (self.stream(n), n.is_multiple_of(2));
        let body = format!(
            "{{\"type\":\"stream\",\"message\":{{\"stream\":{{\"id\":{stream},\"live\":{live},\
             \"backup_live\":false,\"recording\":false,\"client_user_id\":null,\
             \"client_entity_data\":\"{{\\\"v\\\":1,\\\"owner\\\":\\\"tallylight\\\",\
             \\\"installation\\\":\\\"6f0c2a90-b1d9-4a5e-8f3e-5a4c7d2b1e09\\\",\
             \\\"key\\\":\\\"d54f0739-a331-817d-8000-{n:012}\\\"}}\",\
             \"pull\":false,\"uri\":\"srt://vp-push-ed1-srt.gvideo.co:5001?streamid=12345#aaabbbccc\",\
             \"stream_source_type\":\"srt\",\"transcoding\":{live}}}}}}}"
        );
        to.extend_from_slice(body.as_bytes());
    }
}

/// A number that no body's writing makes shorter: 12 digits without a leading zero.
pub(crate) const FIRST_NUMBER: u64 = 100_000_000_000;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use domain::webhook::{self, Observation};

    use super::*;

    fn webhooks() -> Webhooks {
        Webhooks::of("bench", SliceCount::DEFAULT)
    }

    #[test]
    fn bodies_are_current_webhooks_of_about_400_bytes() {
        let mut body = Vec::new();
        webhooks().write(FIRST_NUMBER, &mut body);
        assert!((380..=420).contains(&body.len()), "{} bytes", body.len());
        let Observation::LiveStream(seen) = webhook::read(&body).observation else {
            panic!("no live stream in {}", String::from_utf8_lossy(&body));
        };
        assert_eq!((seen.live, seen.transcoding), (Some(true), Some(true)));
    }

    #[test]
    fn numbers_stand_in_the_body_so_that_no_two_are_alike() {
        let body = |n| {
            let mut body = Vec::new();
            webhooks().write(n, &mut body);
            String::from_utf8(body).unwrap()
        };
        assert!(body(FIRST_NUMBER + 7).contains("-8000-100000000007"));
        assert_ne!(body(FIRST_NUMBER), body(FIRST_NUMBER + 2));
    }

    #[test]
    fn live_streams_are_spread_evenly_over_slices() {
        let webhooks = webhooks();
        let mut slices: BTreeMap<i16, usize> = BTreeMap::new();
        for id in &webhooks.streams {
            let subject = Subject::live_stream("bench", LiveStreamId(*id));
            *slices.entry(SliceCount::DEFAULT.slice_of(&subject)).or_default() += 1;
        }
        assert_eq!(slices.len(), 16);
        assert!(slices.values().all(|n| *n == PER_SLICE), "{slices:?}");
    }

    #[test]
    fn every_live_stream_is_told_of_about_as_often() {
        let webhooks = webhooks();
        let mut told: BTreeMap<i64, usize> = BTreeMap::new();
        for n in 0..10_240 {
            *told.entry(webhooks.stream(FIRST_NUMBER + n)).or_default() += 1;
        }
        assert_eq!(told.len(), 1024);
        assert!(told.values().all(|n| (5..=20).contains(n)), "about 10 each");
    }
}
