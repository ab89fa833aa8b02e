//! What the world promises, in virtual time: nothing here sleeps or opens a socket.

mod access;
mod ingest;
mod mishaps;
mod objects;
mod others;
mod play;
mod recording;
mod transcoding;
mod truth;
