//! Keys of accounts: personal values are sealed with them, and dropping one forgets the person.
//!
//! A key is 256 bits made by chance, once per account and lazily, kept sealed with the sealing key
//! of the configuration. Its id, made by chance too, is the account's *pseudonym*. Nothing here is
//! on the way of an append, a fold or a claim: values are sealed before an append and opened when
//! they are shown or sent. Not its job: what is personal, which [`domain::personal`] lists.

use domain::event::SessionRequested;
use domain::ids::derived_id;
use domain::personal::{ClientValues, Pseudonym, Sealed, SealedField};
use rand::RngExt as _;
use uuid::Uuid;

use crate::{Error, SealingKey, Store};

mod keyring;

pub use keyring::Keyring;

/// Bytes of a key.
const KEY: usize = 32;

/// The key of an account, to seal with.
#[derive(Debug, Clone)]
pub struct AccountKey {
    pseudonym: Pseudonym,
    key: SealingKey,
}

impl AccountKey {
    /// What stands for the account in the log.
    pub fn pseudonym(&self) -> Pseudonym {
        self.pseudonym
    }

    /// Seals what a request says of a person, and names the account by its pseudonym.
    ///
    /// # Errors
    /// [`Error::AccountKey`] where the cipher refuses the value, which is far too long then.
    pub fn seal_request(&self, request: &mut SessionRequested) -> Result<(), Error> {
        let session = request.session;
        request.account = Some(self.pseudonym.to_string());
        request.name = self.seal(session, SealedField::Name, request.name.as_bytes())?;
        let options = &mut request.options;
        let client = ClientValues {
            client_user_id: options.client_user_id.take(),
            data: options.data.take(),
        };
        if client != ClientValues::default() {
            let client = serde_json::to_vec(&client).unwrap_or_default();
            options.sealed = Some(self.seal(session, SealedField::Client, &client)?);
        }
        Ok(())
    }

    fn seal(&self, session: Uuid, field: SealedField, value: &[u8]) -> Result<String, Error> {
        let place = Sealed::place(self.pseudonym, session, field);
        let bytes = self.key.encrypt(place.as_bytes(), value);
        let bytes = bytes.ok_or_else(|| not_opened(self.pseudonym))?;
        Ok(Sealed { key: self.pseudonym, session, field, bytes }.to_string())
    }
}

impl Store {
    /// The key of an account; one is made where it has none. Of several processes that make one at
    /// once, one wins and all get its key.
    ///
    /// # Errors
    /// [`Error::AccountKey`] where keys of this installation were sealed with another sealing key.
    pub async fn account_key(
        &self,
        sealing: &SealingKey,
        account: &str,
    ) -> Result<AccountKey, Error> {
        if let Some(key) = self.find_account_key(sealing, account).await? {
            return Ok(key);
        }
        self.check_sealing_key(sealing).await?;
        loop {
            let bytes: [u8; KEY] = rand::rng().random();
            let id = uuid::Builder::from_random_bytes(rand::rng().random()).into_uuid();
            let pseudonym = Pseudonym(id);
            let sealed = wrap(sealing, pseudonym, &bytes, account)?;
            sqlx::query!(
                "INSERT INTO tallylight.account_key (pseudonym, account_digest, sealed)
                 VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
                pseudonym.0,
                digest(account),
                sealed,
            )
            .execute(&self.pool)
            .await?;
            // Somebody else's, perhaps; gone again, if the account was erased in this moment.
            if let Some(key) = self.find_account_key(sealing, account).await? {
                return Ok(key);
            }
        }
    }

    async fn find_account_key(
        &self,
        sealing: &SealingKey,
        account: &str,
    ) -> Result<Option<AccountKey>, Error> {
        let row = sqlx::query!(
            "SELECT pseudonym, sealed FROM tallylight.account_key WHERE account_digest = $1",
            digest(account),
        )
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let pseudonym = Pseudonym(row.pseudonym);
        let (key, _) = unwrap(sealing, pseudonym, &row.sealed)?;
        Ok(Some(AccountKey { pseudonym, key }))
    }

    /// The pseudonym of an account; `None`: it has no key, or none any more. Needs no sealing key.
    pub async fn pseudonym_of(&self, account: &str) -> Result<Option<Pseudonym>, Error> {
        let found = sqlx::query_scalar!(
            "SELECT pseudonym FROM tallylight.account_key WHERE account_digest = $1",
            digest(account),
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(found.map(Pseudonym))
    }

    /// What an account is called in rows: by its pseudonym, and by its id where it was stored before
    /// there were keys.
    pub async fn names_of(&self, account: &str) -> Result<Vec<String>, Error> {
        let pseudonym = self.pseudonym_of(account).await?;
        let pseudonym = pseudonym.map(|pseudonym| pseudonym.to_string());
        Ok(pseudonym.into_iter().chain([account.to_owned()]).collect())
    }

    /// Two sealing keys in one installation would make keys that only some processes can open.
    async fn check_sealing_key(&self, sealing: &SealingKey) -> Result<(), Error> {
        let any = sqlx::query!("SELECT pseudonym, sealed FROM tallylight.account_key LIMIT 1")
            .fetch_optional(&self.pool)
            .await?;
        match any {
            Some(row) => unwrap(sealing, Pseudonym(row.pseudonym), &row.sealed).map(|_| ()),
            None => Ok(()),
        }
    }
}

/// How the row of an account is found.
pub(crate) fn digest(account: &str) -> Uuid {
    derived_id("account-key", &[account])
}

/// Key and account id, sealed with the sealing key.
fn wrap(
    sealing: &SealingKey,
    pseudonym: Pseudonym,
    key: &[u8; KEY],
    account: &str,
) -> Result<Vec<u8>, Error> {
    let message = [key.as_slice(), account.as_bytes()].concat();
    let sealed = sealing.encrypt(place(pseudonym).as_bytes(), &message);
    sealed.ok_or_else(|| not_opened(pseudonym))
}

/// The key and the account id of a row.
fn unwrap(
    sealing: &SealingKey,
    pseudonym: Pseudonym,
    sealed: &[u8],
) -> Result<(SealingKey, String), Error> {
    let failed = || not_opened(pseudonym);
    let message = sealing.decrypt(place(pseudonym).as_bytes(), sealed).ok_or_else(failed)?;
    let (key, account) = message.split_first_chunk::<KEY>().ok_or_else(failed)?;
    let account = String::from_utf8(account.to_vec()).map_err(|_| failed())?;
    Ok((SealingKey::new(*key), account))
}

/// What is bound into the seal of a row.
fn place(pseudonym: Pseudonym) -> String {
    format!("account-key:{pseudonym}")
}

fn not_opened(pseudonym: Pseudonym) -> Error {
    Error::AccountKey { pseudonym: pseudonym.to_string() }
}

#[cfg(test)]
mod tests;
