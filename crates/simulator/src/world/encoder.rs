//! What an encoder does: connect, lose its connection, come back, stop.
//!
//! For a PULL stream the same actions mean that its source appears and disappears.

use serde::{Deserialize, Serialize};

use super::World;
use super::agenda::Step;
use crate::ControlError;

/// One of the two ways into a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// The main push address, or the source of a PULL: shown as `live`.
    #[default]
    Primary,
    /// The backup push address: shown as `backup_live`.
    Backup,
}

/// What the encoder does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Connects; after a drop this is the return.
    Push,
    /// Loses the connection without a goodbye.
    Drop,
    /// Ends the connection properly.
    Stop,
}

/// Nominal seconds after which the ingester gives up a silent connection.
const INGEST_TIMEOUT_S: f64 = 3.0;

impl World {
    /// Does an encoder's action.
    ///
    /// # Errors
    /// No such stream, inactive, connected already, not connected.
    pub(crate) fn encoder(
        &mut self,
        now: chrono::DateTime<chrono::Utc>,
        id: i64,
        line: Line,
        action: Action,
    ) -> Result<(), ControlError> {
        self.advance(now);
        self.act(id, line, action)
    }

    /// Does an encoder's action now.
    pub(super) fn act(&mut self, id: i64, line: Line, action: Action) -> Result<(), ControlError> {
        match action {
            Action::Push => self.push(id, line),
            Action::Drop => self.drop_connection(id, line),
            Action::Stop => self.stop(id, line),
        }
    }

    /// Connects a source. PUSH needs an active stream; a PULL source may wait for the switch.
    fn push(&mut self, id: i64, line: Line) -> Result<(), ControlError> {
        let (now, is_down) = (self.now, self.is_down());
        let stream = self.streams.get_mut(&id).ok_or(ControlError::UnknownStream(id))?;
        if is_down {
            return Err(ControlError::Down(id));
        }
        if !stream.is_pull() && !stream.is_active() {
            return Err(ControlError::Inactive(id));
        }
        let ingest = stream.ingest_mut(line);
        if ingest.connected {
            return Err(ControlError::Busy(id));
        }
        ingest.connected = true;
        ingest.connection += 1;
        self.ledger.sends(now, id, line, true);
        self.source_is_seen(id, line);
        Ok(())
    }

    /// Silences a source: media ends now, `live` falls when the ingester gives up.
    fn drop_connection(&mut self, id: i64, line: Line) -> Result<(), ControlError> {
        let connection = self.disconnect(id, line)?;
        self.flow_changed(id);
        self.plan(INGEST_TIMEOUT_S, Step::IngestTimesOut { stream: id, line, connection });
        Ok(())
    }

    /// Ends a connection properly: `live` falls at once.
    fn stop(&mut self, id: i64, line: Line) -> Result<(), ControlError> {
        self.disconnect(id, line)?;
        self.flow_changed(id);
        self.line_ends(id, line);
        Ok(())
    }

    /// Takes the connection away and returns its number.
    fn disconnect(&mut self, id: i64, line: Line) -> Result<u64, ControlError> {
        let now = self.now;
        let stream = self.streams.get_mut(&id).ok_or(ControlError::UnknownStream(id))?;
        let ingest = stream.ingest_mut(line);
        if !ingest.connected {
            return Err(ControlError::NotConnected(id));
        }
        ingest.connected = false;
        let connection = ingest.connection;
        self.ledger.sends(now, id, line, false);
        Ok(connection)
    }
}
