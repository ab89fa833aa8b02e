//! What happened, as numbers that only grow. Who shows them is another matter.

use std::sync::atomic::{AtomicU64, Ordering};

/// Defines the counters and their snapshot from one list.
macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters since the start of the process.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($name: AtomicU64,)*
        }

        /// The counters at one moment.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Snapshot {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// All of them. Each is exact; together they are not of one instant.
            pub fn snapshot(&self) -> Snapshot {
                Snapshot { $($name: self.$name.load(Ordering::Relaxed),)* }
            }

            $(
                /// Adds to the counter of this name.
                pub(crate) fn $name(&self, more: usize) {
                    self.$name.fetch_add(more as u64, Ordering::Relaxed);
                }
            )*
        }
    };
}

counters! {
    /// Webhooks answered 200.
    stored,
    /// Requests with an unknown source, a wrong token or one that has ended.
    not_found,
    /// Requests with a right token from outside the source's networks: look at the settings.
    outside_networks,
    /// Bodies above the limit.
    too_large,
    /// Bodies that took too long.
    timed_out,
    /// Bodies that broke off.
    broken_off,
    /// Webhooks answered 503.
    unavailable,
    /// Stored webhooks that name no object.
    unrecognized,
    /// Stored webhooks whose first form the database refused.
    refused,
    /// Secrets replaced in stored webhooks.
    redacted,
    /// Stored webhooks marked as the repeat of another.
    repeated,
    /// Batches committed.
    batches,
    /// Events in them.
    batch_events,
    /// Time their calls took, in microseconds.
    append_micros,
    /// Calls repeated because their outcome was unknown.
    retries,
    /// Events given up by a lane after the deadline: lost, if their first calls failed too.
    given_up,
}
