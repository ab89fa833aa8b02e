//! Why the simulator does not start, and why an encoder is refused.

use std::net::SocketAddr;

/// The simulator cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address is reachable from other machines and nobody allowed that.
    #[error(
        "listen on {listen}: not a loopback address; choose 127.0.0.1 or set `allow_remote` if \
         strangers may drive this simulator"
    )]
    NotLoopback {
        /// The address asked for.
        listen: SocketAddr,
    },
    /// The time scale is not a positive, finite number.
    #[error("use time scale {time_scale}: give a positive number, 1 for real time")]
    TimeScale {
        /// The value asked for.
        time_scale: f64,
    },
    /// The address cannot be bound, for instance because another program has it.
    #[error("bind {listen}: is the port free?")]
    Bind {
        /// The address asked for.
        listen: SocketAddr,
        /// The operating system's answer.
        #[source]
        source: std::io::Error,
    },
    /// The HTTP client for webhooks cannot be built.
    #[error("build the HTTP client that sends webhooks")]
    HttpClient {
        /// The client's answer.
        #[source]
        source: reqwest::Error,
    },
}

/// An encoder's action is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// No such stream.
    #[error("find stream {0}: no stream has this id")]
    UnknownStream(i64),
    /// PUSH to a stream that is switched off.
    #[error("push to stream {0}: it is inactive; set `active` to true first")]
    Inactive(i64),
    /// The platform restarts.
    #[error("push to stream {0}: the platform restarts")]
    Down(i64),
    /// One connection per key.
    #[error("push to stream {0}: an encoder is connected already")]
    Busy(i64),
    /// There is no connection to drop or stop.
    #[error("disconnect from stream {0}: no encoder is connected")]
    NotConnected(i64),
}
