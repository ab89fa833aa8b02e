//! Registering an endpoint under an `Idempotency-Key`: one key is one endpoint, however often it is
//! sent. A repeat is told the endpoint and its secret again, since the first answer may be lost.

use domain::endpoint::Secret;
use domain::ids::derived_id;
use uuid::Uuid;

use super::{NewEndpoint, open_secret};
use crate::{Error, SealingKey, Store};

/// What came of a request under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddedEndpoint {
    /// It was added now.
    New(Uuid, Secret),
    /// It was added before, by the same request; its present secret.
    Again(Uuid, Secret),
    /// The key stands for another request.
    Reused,
}

impl Store {
    /// Adds an endpoint once for `idempotency_key`.
    ///
    /// # Errors
    /// As [`Store::add_endpoint`].
    pub async fn add_endpoint_once(
        &self,
        key: &SealingKey,
        new: &NewEndpoint,
        idempotency_key: &str,
    ) -> Result<AddedEndpoint, Error> {
        let id = derived_id("endpoint", &[idempotency_key]);
        let request = digest(new);
        if let Some(secret) = self.insert_endpoint(key, new, id, Some(request)).await? {
            return Ok(AddedEndpoint::New(id, secret));
        }
        let row = sqlx::query!("SELECT request, secret FROM tallylight.endpoint WHERE id = $1", id)
            .fetch_optional(&self.pool)
            .await?;
        match row {
            Some(row) if row.request == Some(request) => {
                Ok(AddedEndpoint::Again(id, open_secret(key, id, &row.secret)?))
            }
            Some(_) => Ok(AddedEndpoint::Reused),
            // Removed in between: nothing was added by this request.
            None => Err(super::too_many()),
        }
    }
}

/// Tells which requests are the same.
fn digest(new: &NewEndpoint) -> Uuid {
    let NewEndpoint { url, description, filter } = new;
    let list = |texts: &[String]| derived_id("list", &refs(texts)).to_string();
    let lists = [list(&filter.types), list(&filter.accounts), list(&filter.sources)];
    let has_description = description.is_some().to_string();
    let description = description.as_deref().unwrap_or_default();
    let mut parts = vec![url.as_str(), &has_description, description];
    parts.extend(lists.iter().map(String::as_str));
    derived_id("endpoint-request", &parts)
}

fn refs(texts: &[String]) -> Vec<&str> {
    texts.iter().map(String::as_str).collect()
}

#[cfg(test)]
mod tests {
    use domain::endpoint::Filter;

    use super::*;

    #[test]
    fn requests_that_differ_in_anything_have_different_digests() {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let first = NewEndpoint { url: "https://a.example".to_owned(), ..NewEndpoint::default() };
        let with = |filter: Filter| NewEndpoint { filter, ..first.clone() };
        let some = texts(&["a"]);
        let others = [
            NewEndpoint { url: "https://b.example".to_owned(), ..first.clone() },
            NewEndpoint { description: Some(String::new()), ..first.clone() },
            with(Filter { types: texts(&["a"]), ..Filter::default() }),
            with(Filter { accounts: texts(&["a"]), ..Filter::default() }),
            with(Filter { sources: some, ..Filter::default() }),
        ];
        let mut digests: Vec<Uuid> = others.iter().chain([&first]).map(digest).collect();
        digests.sort_unstable();
        digests.dedup();
        assert_eq!(digests.len(), 6);
        assert_eq!(digest(&first), digest(&first.clone()));
    }
}
