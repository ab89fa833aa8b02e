//! The endpoints as a caller meets them, over a database of their own for every test. No worker
//! runs: where a projection is read, [`support::App::project`] folds the log as the worker does.

mod access;
mod batches;
mod cleanup;
mod commands;
mod create;
mod endpoints;
mod erasure;
mod feed;
mod job_verbs;
mod read;
mod requests;
mod services;
pub(crate) mod support;
mod timeline;
