//! What stands between a process and the in-memory tables: calls that are refused, slow or lost.

use std::fmt;
use std::sync::PoisonError;
use std::time::Duration;

use domain::ids::Timestamp;
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::Memory;
use crate::testing::tables::Tables;
use crate::{Answer, Error};

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is executed and answered.
    Answered {
        /// Time to the tables.
        there: Duration,
        /// Time of the answer.
        back: Duration,
    },
    /// No connection: it is not executed.
    Refused,
    /// The connection breaks: it is executed, and the caller does not hear how it ended.
    Lost {
        /// Time to the tables.
        there: Duration,
        /// When the caller hears that the connection is broken: perhaps before the execution.
        heard: Duration,
    },
}

impl Fate {
    /// Executed and answered at once.
    pub const AT_ONCE: Self = Self::Answered { there: Duration::ZERO, back: Duration::ZERO };
}

/// What stands between a process and the tables.
pub trait Line: fmt::Debug + Send + Sync {
    /// What becomes of a call, which is named as its method.
    fn fate(&self, call: &'static str) -> Fate;

    /// Whether the process hears a hint.
    fn hears(&self) -> bool {
        true
    }
}

/// Nothing ever goes wrong.
#[derive(Debug)]
pub(super) struct Perfect;

impl Line for Perfect {
    fn fate(&self, _: &'static str) -> Fate {
        Fate::AT_ONCE
    }
}

impl Memory {
    /// Makes a call over the line.
    pub(super) fn call<'a, T: Send + 'static>(
        &self,
        name: &'static str,
        run: impl FnOnce(&mut Tables, Timestamp) -> Result<T, Error> + Send + 'static,
    ) -> Answer<'a, T> {
        let memory = self.clone();
        Box::pin(async move {
            match memory.line.fate(name) {
                Fate::AT_ONCE => memory.execute(run),
                Fate::Refused => Err(broken()),
                Fate::Answered { there, back } => {
                    let answer = memory.send(there, run);
                    let answer = answer.await.unwrap_or_else(|_| Err(broken()));
                    sleep(back).await;
                    answer
                }
                Fate::Lost { there, heard } => {
                    drop(memory.send(there, run));
                    sleep(heard).await;
                    Err(broken())
                }
            }
        })
    }

    /// Sends a call, which is executed after a while whether somebody waits for it or not.
    fn send<T: Send + 'static>(
        &self,
        there: Duration,
        run: impl FnOnce(&mut Tables, Timestamp) -> Result<T, Error> + Send + 'static,
    ) -> oneshot::Receiver<Result<T, Error>> {
        let (reply, answer) = oneshot::channel();
        let memory = self.clone();
        tokio::spawn(async move {
            sleep(there).await;
            let _ = reply.send(memory.execute(run));
        });
        answer
    }

    fn execute<T>(
        &self,
        run: impl FnOnce(&mut Tables, Timestamp) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut tables = self.tables();
        let answer = run(&mut tables, (self.shared.clock)());
        let mut watch = self.shared.watch.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(watch) = watch.as_mut() {
            watch(&tables);
        }
        answer
    }
}

/// The connection is broken, or was refused.
fn broken() -> Error {
    let source = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
    Error::Unreachable { source: sqlx::Error::Io(source) }
}
