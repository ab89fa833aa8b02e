//! `endpoints`: registers, lists, shows, enables, disables, tries and removes endpoints; rotates
//! their secrets and sends messages once more.

use std::time::SystemTime;

use anyhow::{Context as _, Result, bail, ensure};
use domain::endpoint::Filter;
use domain::ids::{Timestamp, is_account_id};
use domain::message::MessageId;
use domain::personal::Pseudonym;
use store::{Again, Endpoint, EndpointChange, Keyring, NewEndpoint, SealingKey, Store};
use uuid::Uuid;

use crate::cli::{Endpoints, EndpointsAdd, EndpointsRedeliver};
use crate::config::Config;
use crate::database::Database;
use crate::home;
use crate::output::say;

/// What the commands work with.
struct Desk<'a> {
    store: &'a Store,
    config: &'a Config,
    key: Option<SealingKey>,
}

/// Does what was asked for.
pub(crate) async fn run(config: Config, command: Endpoints) -> Result<()> {
    let database = Database::open(&config).await?;
    let store = database.connect().await?;
    let desk = Desk { store: &store, config: &config, key: home::sealing_key(&config)? };
    let done = desk.perform(command).await;
    store.close().await;
    database.close().await?;
    done
}

impl Desk<'_> {
    async fn perform(&self, command: Endpoints) -> Result<()> {
        match command {
            Endpoints::Add(options) => self.add(options).await,
            Endpoints::List => self.list().await,
            Endpoints::Show { id } => self.show(id).await,
            Endpoints::Enable { id } => self.enable(id, true).await,
            Endpoints::Disable { id } => self.enable(id, false).await,
            Endpoints::Rotate { id } => self.rotate(id).await,
            Endpoints::Test { id } => self.test(id).await,
            Endpoints::Deliveries { id, undelivered, limit } => {
                self.deliveries(id, undelivered, limit).await
            }
            Endpoints::Redeliver(options) => self.redeliver(options).await,
            Endpoints::Remove { id } => {
                check(self.store.remove_endpoint(id).await?, id)?;
                say(format!("{id} is removed; what waits for it is sent no more"));
                Ok(())
            }
        }
    }

    async fn deliveries(&self, id: Uuid, undelivered: bool, limit: i64) -> Result<()> {
        check(self.store.endpoint(id).await?.is_some(), id)?;
        let deliveries = self.store.deliveries(id, undelivered, limit).await?;
        if deliveries.is_empty() {
            say("no deliveries: what was accepted is kept with jobs.history = \"all\" only");
        }
        for delivery in deliveries {
            let topic = delivery.topic.as_deref().unwrap_or("-");
            let message = delivery.message.as_deref().unwrap_or("-");
            let status = delivery.last_status.map_or("-".to_owned(), |status| status.to_string());
            say(format!(
                "{}  {topic}  {message}  {}  {} tries  last status {status}",
                delivery.enqueued_at.format("%F %T UTC"),
                delivery.state,
                delivery.attempts,
            ));
            if let Some(error) = &delivery.last_error {
                say(format!("    {error}"));
            }
        }
        Ok(())
    }

    fn key(&self) -> Result<&SealingKey> {
        self.key.as_ref().context(
            "find the sealing key: set sealing.key or sealing.key_file to that of the installation, \
             secrets of endpoints are kept under it",
        )
    }

    async fn add(&self, options: EndpointsAdd) -> Result<()> {
        let EndpointsAdd { url, types, accounts, sources, description } = options;
        ensure!(
            url.starts_with("https://") || self.config.webhooks.private,
            "the address must begin with https://, unless webhooks.private is set"
        );
        let mut pseudonyms = Vec::new();
        for account in accounts {
            ensure!(is_account_id(&account), "\"{account}\" cannot be an account");
            let account = self.store.account_key(self.key()?, &account).await?;
            pseudonyms.push(account.pseudonym().to_string());
        }
        let filter = Filter { types, accounts: pseudonyms, sources };
        let new = NewEndpoint { url, description, filter };
        let (id, secret) = self.store.add_endpoint(self.key()?, &new).await?;
        say(format!("id      {id}"));
        say(format!("secret  {}", secret.text()));
        say("The secret is told this once: give it to the service that verifies messages.");
        Ok(())
    }

    async fn list(&self) -> Result<()> {
        let endpoints = self.store.endpoints().await?;
        if endpoints.is_empty() {
            say("no endpoints");
        }
        for endpoint in endpoints {
            say(format!("{}  {}  {}", endpoint.id, endpoint.url, standing(&endpoint)));
        }
        Ok(())
    }

    async fn show(&self, id: Uuid) -> Result<()> {
        let endpoint = self.find(id).await?;
        let keyring = self.keyring(&endpoint).await?;
        let Filter { types, accounts, sources } = &endpoint.filter;
        let accounts: Vec<String> = accounts.iter().map(|text| keyring.text(text, None)).collect();
        say(format!("id        {}", endpoint.id));
        say(format!("url       {}", endpoint.url));
        if let Some(description) = &endpoint.description {
            say(format!("is        {description}"));
        }
        say(format!("types     {}", all_or(types)));
        say(format!("accounts  {}", all_or(&accounts)));
        say(format!("sources   {}", all_or(sources)));
        say(format!("stands    {}", standing(&endpoint)));
        if let Some(error) = &endpoint.last_error {
            say(format!("error     {error}"));
        }
        if let Some(until) = endpoint.old_secret_until {
            say(format!("rotated   the old secret signs until {}", time(until)));
        }
        Ok(())
    }

    /// The keys of its accounts.
    async fn keyring(&self, endpoint: &Endpoint) -> Result<Keyring> {
        let accounts = endpoint.filter.accounts.iter();
        let wanted = accounts.filter_map(|account| Pseudonym::read(account)).collect();
        Ok(self.store.keyring(self.key.as_ref(), &wanted).await?)
    }

    async fn enable(&self, id: Uuid, enabled: bool) -> Result<()> {
        let change = EndpointChange { enabled: Some(enabled), ..EndpointChange::default() };
        check(self.store.change_endpoint(id, &change).await?, id)?;
        say(format!("{id} is {}", standing(&self.find(id).await?)));
        if enabled {
            say("What was announced meanwhile: `tallylight endpoints redeliver ID --since TIME`.");
        }
        Ok(())
    }

    async fn rotate(&self, id: Uuid) -> Result<()> {
        let secret = self.store.rotate_secret(self.key()?, id).await?;
        say(format!("secret  {}", secret.with_context(|| missing(id))?.text()));
        say("The secret is told this once. The old one signs too for 24 hours.");
        Ok(())
    }

    async fn test(&self, id: Uuid) -> Result<()> {
        let endpoint = self.find(id).await?.id;
        let now = Timestamp::from(SystemTime::now());
        let (job, slice) = self.store.test_endpoint(endpoint, now).await?;
        self.store.notifier().enqueued(slice);
        say(format!("job {job} sends it: if it fails, `tallylight jobs show {job}` says why"));
        Ok(())
    }

    async fn redeliver(&self, options: EndpointsRedeliver) -> Result<()> {
        let EndpointsRedeliver { id, message, since, until, dry_run } = options;
        let endpoint = self.find(id).await?;
        ensure!(
            endpoint.disabled.is_none() || dry_run,
            "{id} is disabled: `tallylight endpoints enable {id}` first"
        );
        let again = match (message, since) {
            (Some(text), _) => Again::Message(MessageId::read(&text).with_context(|| {
                format!("read \"{text}\": ids of messages are such as evt_11_5021_9f3a2c1b")
            })?),
            (None, Some(since)) => Again::Since { since, until },
            (None, None) => bail!("give --message or --since"),
        };
        let resent = self.store.resend(&endpoint, again, dry_run).await?;
        let resent = resent.context("find the message: there is none of that id")?;
        for slice in resent.slices {
            self.store.notifier().enqueued(slice);
        }
        let what = if dry_run { "would be sent" } else { "are sent" };
        say(format!("{} messages {what} again", resent.messages));
        if let Some(next) = resent.next_since {
            say(format!("there are more: go on with --since {}", next.to_rfc3339()));
        }
        Ok(())
    }

    async fn find(&self, id: Uuid) -> Result<Endpoint> {
        self.store.endpoint(id).await?.with_context(|| missing(id))
    }
}

fn check(is_there: bool, id: Uuid) -> Result<()> {
    if is_there { Ok(()) } else { bail!(missing(id)) }
}

fn missing(id: Uuid) -> String {
    format!("no endpoint has the id {id}; see `tallylight endpoints list`")
}

/// How an endpoint stands, in words.
fn standing(endpoint: &Endpoint) -> String {
    match (&endpoint.disabled, endpoint.failing_since) {
        (Some(disabled), _) => {
            format!("disabled since {}: {}", time(disabled.at), disabled.reason)
        }
        (None, Some(since)) => format!("failing since {}", time(since)),
        (None, None) => "enabled".to_owned(),
    }
}

fn all_or(list: &[String]) -> String {
    if list.is_empty() { "all".to_owned() } else { list.join(", ") }
}

fn time(at: Timestamp) -> String {
    at.format("%F %T UTC").to_string()
}
