//! Sealed secrets: push addresses and keys of live streams, AES-256-GCM. The key stays in the
//! configuration; the subject is bound in as associated data, so a seal cannot be moved to another.

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Key, Nonce};
use domain::ids::Subject;
use rand::RngExt as _;

use crate::{Error, Store};

/// Bytes of a nonce.
const NONCE: usize = 12;

/// A key that seals.
#[derive(Clone)]
pub struct SealingKey(Key<Aes256Gcm>);

impl std::fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealingKey([redacted])")
    }
}

impl SealingKey {
    /// A key of these bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes.into())
    }

    /// Nonce, ciphertext and tag of `message`; `place` is bound in.
    pub(crate) fn encrypt(&self, place: &[u8], message: &[u8]) -> Option<Vec<u8>> {
        let nonce: [u8; NONCE] = rand::rng().random();
        let payload = Payload { msg: message, aad: place };
        let ciphertext = Aes256Gcm::new(&self.0).encrypt(&Nonce::from(nonce), payload).ok()?;
        Some([nonce.as_slice(), &ciphertext].concat())
    }

    /// The message of what was encrypted with this key for this place; else `None`.
    pub(crate) fn decrypt(&self, place: &[u8], bytes: &[u8]) -> Option<Vec<u8>> {
        let (nonce, ciphertext) = bytes.split_first_chunk::<NONCE>()?;
        let payload = Payload { msg: ciphertext, aad: place };
        Aes256Gcm::new(&self.0).decrypt(&Nonce::from(*nonce), payload).ok()
    }
}

impl Store {
    /// Seals `secret` for `subject`, in the place of what was sealed for it before.
    pub async fn seal(
        &self,
        key: &SealingKey,
        subject: &Subject,
        secret: &[u8],
    ) -> Result<(), Error> {
        let failed = || Error::Seal { subject: subject.to_string() };
        let sealed = key.encrypt(subject.as_str().as_bytes(), secret).ok_or_else(failed)?;
        let (nonce, ciphertext) = sealed.split_at(NONCE);
        sqlx::query!(
            "INSERT INTO tallylight.sealed (slice, subject, nonce, ciphertext) VALUES ($1, $2, $3, $4)
             ON CONFLICT (slice, subject)
             DO UPDATE SET nonce = excluded.nonce, ciphertext = excluded.ciphertext, sealed_at = now()",
            self.slice_of(subject),
            subject.as_str(),
            nonce,
            ciphertext,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Opens what was sealed for `subject`; `None`: nothing was.
    ///
    /// # Errors
    /// [`Error::Seal`] where it was sealed with another key.
    pub async fn unseal(
        &self,
        key: &SealingKey,
        subject: &Subject,
    ) -> Result<Option<Vec<u8>>, Error> {
        let row = sqlx::query!(
            "SELECT nonce, ciphertext FROM tallylight.sealed WHERE slice = $1 AND subject = $2",
            self.slice_of(subject),
            subject.as_str(),
        )
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let failed = || Error::Seal { subject: subject.to_string() };
        let sealed = [row.nonce, row.ciphertext].concat();
        key.decrypt(subject.as_str().as_bytes(), &sealed).map(Some).ok_or_else(failed)
    }
}
