//! Scripts that read like stories: a line per step, who does what, and what is expected of it.
//!
//! ```text
//! # Every line that begins so is a remark.
//! given    quota 1
//! given    recording_hold_s 60
//! product  asks for A
//! expect   A is ready
//! encoder  of A connects
//! +30 encoder of A drops
//! network  loses the reply to PUT /streaming/streams/*/stop_recording
//! portal   deletes_stream of A
//! worker   dies after PUT /streaming/streams/*/stop_recording
//! expect   A has 2 parts
//! ```
//!
//! What is given is how the platform is: `quota`, `lag`, and every switch of `simulator::Behaviour` by
//! its name. `+30` lets so many seconds of the platform's time pass before the step. Sessions are named by one
//! word. Not its job: playing it.

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;
use simulator::{Behaviour, Line, Mishap};

/// A script.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Story {
    /// Live streams that may be active at once, if it says.
    pub(crate) quota: Option<u32>,
    /// How the platform is where its documents leave that open.
    pub(crate) platform: Behaviour,
    /// Its steps, in order.
    pub(crate) steps: Vec<Step>,
}

/// A step.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Step {
    /// As it is written, without superfluous blanks.
    pub(crate) text: String,
    /// Seconds of the platform's time that pass before it.
    pub(crate) after: f64,
    /// What is done, or expected.
    pub(crate) what: What,
}

/// What is done, or expected.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum What {
    /// The product asks for a session, shown as soon as its encoder sends; on the live stream of
    /// another one, or on a new one.
    Ask { session: String, on: Option<String> },
    /// The product commands a session: `go-live`, `end`, `retry`.
    Command { session: String, command: &'static str },
    /// An encoder acts.
    Encoder { session: String, line: Line, act: Act },
    /// Webhooks are lost from now on: all, or those of one type.
    LoseWebhooks { only: Vec<String> },
    /// Every webhook is sent twice from now on.
    RepeatWebhooks,
    /// Webhooks come late from now on, and overtake each other.
    DelayWebhooks,
    /// The next such request is carried out and its answer lost.
    LoseReply { request: String },
    /// The next such request is answered with this status and not carried out.
    Refuse { request: String, status: u16 },
    /// The network is well again.
    Heal,
    /// Platform or people do something by themselves.
    Mishap { mishap: Mishap, session: Option<String> },
    /// A worker dies as hard as a machine can, and another starts.
    WorkerDies(Death),
    /// Something is waited for.
    Expect(Expected),
}

/// When a worker dies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Death {
    /// Now.
    Now,
    /// When it makes the next such request, before that has arrived.
    Before { request: String },
    /// When the next such request has had its effect, before the worker hears of it.
    After { request: String },
}

/// What is expected.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Expected {
    /// A session comes to this status.
    Is { session: String, status: String },
    /// A session never came to this status.
    NeverWas { session: String, status: String },
    /// The platform records a session.
    IsRecorded { session: String },
    /// A session waits for a slot.
    WaitsForSlot { session: String },
    /// A session has so many parts.
    Parts { session: String, count: usize },
    /// How a session's recording stands.
    Recording { session: String, word: String },
    /// What we say of a session's parts is what really is.
    Agrees { session: String },
    /// So many live streams were made for a session.
    LiveStreams { session: String, count: usize },
    /// So many live streams are active.
    Active { count: u64 },
}

/// What an encoder does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// It connects, or comes back.
    Connect,
    /// Its connection breaks.
    Drop,
    /// It ends properly.
    Stop,
}

impl Story {
    /// Reads a script.
    ///
    /// # Errors
    /// A line that cannot be read; the message has its number and what could stand there.
    pub(crate) fn read(text: &str) -> Result<Self> {
        let mut story = Self::default();
        for (n, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            story.line(line).with_context(|| format!("line {}: {line}", n + 1))?;
        }
        Ok(story)
    }

    fn line(&mut self, line: &str) -> Result<()> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let text = words.join(" ");
        let (after, words) = match words[0].strip_prefix('+') {
            Some(seconds) => (seconds.parse().context("seconds follow the +")?, &words[1..]),
            None => (0.0, &words[..]),
        };
        let (who, what) = words.split_first().context("somebody does something")?;
        if *who == "given" {
            return self.given(what);
        }
        let what = match *who {
            "product" => product(what),
            "encoder" => encoder(what, Line::Primary),
            "backup" => encoder(what, Line::Backup),
            "network" => network(what),
            "portal" | "platform" => mishap(what),
            "worker" => worker(what),
            "expect" => expectation(what).map(What::Expect),
            _ => Err(anyhow!(
                "given, product, encoder, backup, network, portal, platform, worker and expect can \
                 begin a line"
            )),
        };
        self.steps.push(Step { text, after, what: what? });
        Ok(())
    }

    fn given(&mut self, words: &[&str]) -> Result<()> {
        match words {
            ["quota", quota] => self.quota = Some(quota.parse().context("a quota is a number")?),
            ["lag", seconds] => {
                self.platform.flags_lag_s = seconds.parse().context("a lag is in seconds")?;
            }
            [switch, value] => self.platform = switched(&self.platform, switch, value)?,
            _ => bail!("`quota N`, `lag SECONDS` or `SWITCH VALUE` can be given"),
        }
        Ok(())
    }
}

/// The platform with one of its switches set: to a word that it knows, else to a number and the like.
fn switched(platform: &Behaviour, switch: &str, value: &str) -> Result<Behaviour> {
    let all = serde_json::to_value(platform)?;
    if all.get(switch).is_none() {
        let known = all.as_object().into_iter().flat_map(|all| all.keys().map(String::as_str));
        bail!("known are quota, lag, {}", known.collect::<Vec<_>>().join(", "));
    }
    let with = |value: Value| {
        let mut all = all.clone();
        all[switch] = value;
        serde_json::from_value::<Behaviour>(all)
    };
    let word = with(Value::from(value));
    word.or_else(|_| with(serde_json::from_str(value)?))
        .with_context(|| format!("{switch} cannot be {value}"))
}

fn product(words: &[&str]) -> Result<What> {
    match words {
        ["asks", "for", session] => Ok(What::Ask { session: name(session), on: None }),
        ["asks", "for", session, "on", "the", "live", "stream", "of", other] => {
            Ok(What::Ask { session: name(session), on: Some(name(other)) })
        }
        ["shows", session] => Ok(What::Command { session: name(session), command: "go-live" }),
        ["ends", session] => Ok(What::Command { session: name(session), command: "end" }),
        ["retries", session] => Ok(What::Command { session: name(session), command: "retry" }),
        _ => bail!(
            "a product `asks for`, `shows`, `ends` or `retries` a session; it may ask for one `on \
             the live stream of` another"
        ),
    }
}

fn encoder(words: &[&str], line: Line) -> Result<What> {
    let (session, act) = match words {
        ["of", session, "connects" | "returns"] => (session, Act::Connect),
        ["of", session, "drops"] => (session, Act::Drop),
        ["of", session, "stops"] => (session, Act::Stop),
        _ => bail!("an encoder `of NAME` `connects`, `drops`, `returns` or `stops`"),
    };
    Ok(What::Encoder { session: name(session), line, act })
}

fn network(words: &[&str]) -> Result<What> {
    match words {
        ["loses", "all", "webhooks"] => Ok(What::LoseWebhooks { only: Vec::new() }),
        ["repeats", "all", "webhooks"] => Ok(What::RepeatWebhooks),
        ["delays", "all", "webhooks"] => Ok(What::DelayWebhooks),
        ["loses", kind, "webhooks"] => Ok(What::LoseWebhooks { only: vec![name(kind)] }),
        ["loses", "the", "reply", "to", method, path] => {
            Ok(What::LoseReply { request: format!("{method} {path}") })
        }
        ["answers", method, path, "with", status] => {
            let status = status.parse().context("a status is a number")?;
            Ok(What::Refuse { request: format!("{method} {path}"), status })
        }
        ["is", "well"] => Ok(What::Heal),
        _ => bail!(
            "a network `loses all webhooks`, `loses TYPE webhooks`, `repeats all webhooks`, `delays \
             all webhooks`, `loses the reply to METHOD PATH`, `answers METHOD PATH with STATUS` or \
             `is well`"
        ),
    }
}

fn mishap(words: &[&str]) -> Result<What> {
    let (word, session) = match words {
        [word] => (word, None),
        [word, "of", session] => (word, Some(name(session))),
        _ => bail!("what happens is one word, and may be `of NAME`"),
    };
    let known = Mishap::ALL.into_iter().find(|mishap| mishap.to_string() == *word);
    let mishap = known.with_context(|| {
        format!("known are {}", Mishap::ALL.map(|mishap| mishap.to_string()).join(", "))
    })?;
    Ok(What::Mishap { mishap, session })
}

fn worker(words: &[&str]) -> Result<What> {
    let request = |method: &str, path: &str| format!("{method} {path}");
    Ok(What::WorkerDies(match words {
        ["dies"] => Death::Now,
        ["dies", "before", method, path] => Death::Before { request: request(method, path) },
        ["dies", "after", method, path] => Death::After { request: request(method, path) },
        _ => bail!("a worker `dies`, `dies before METHOD PATH` or `dies after METHOD PATH`"),
    }))
}

fn expectation(words: &[&str]) -> Result<Expected> {
    let number = |word: &str| word.parse().with_context(|| format!("{word} is no number"));
    Ok(match words {
        [session, "is", "recorded"] => Expected::IsRecorded { session: name(session) },
        [session, "is", status] => Expected::Is { session: name(session), status: name(status) },
        [session, "was", "never", status] => {
            Expected::NeverWas { session: name(session), status: name(status) }
        }
        [session, "waits", "for", "a", "slot"] => Expected::WaitsForSlot { session: name(session) },
        [session, "has", count, "part" | "parts"] => {
            Expected::Parts { session: name(session), count: number(count)? }
        }
        [session, "has", "a", word, "recording"] => {
            Expected::Recording { session: name(session), word: name(word) }
        }
        [session, "agrees", "with", "the", "platform"] => {
            Expected::Agrees { session: name(session) }
        }
        [session, "has", count, "live", "stream" | "streams"] => {
            Expected::LiveStreams { session: name(session), count: number(count)? }
        }
        ["the", "platform", "has", count, "active"] => {
            Expected::Active { count: count.parse().context("a count is a number")? }
        }
        _ => bail!(
            "expected is `NAME is STATUS`, `NAME was never STATUS`, `NAME is recorded`, `NAME waits \
             for a slot`, `NAME has N parts`, `NAME has a WORD recording`, `NAME has N live \
             streams`, `NAME agrees with the platform` or `the platform has N active`"
        ),
    })
}

fn name(word: &str) -> String {
    word.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_story_is_read_line_by_line() {
        let text = "# A remark\ngiven quota 2\n\nproduct   asks for A\n+30 encoder of A drops\n\
                    expect A has 2 parts\nplatform restarts\nportal deletes_stream of A\n";
        let story = Story::read(text).unwrap();
        assert_eq!(story.quota, Some(2));
        let what: Vec<&What> = story.steps.iter().map(|step| &step.what).collect();
        let session = "A".to_owned();
        let drop = What::Encoder { session: session.clone(), line: Line::Primary, act: Act::Drop };
        assert_eq!(*what[0], What::Ask { session: session.clone(), on: None });
        assert_eq!(*what[1], drop);
        assert!((story.steps[1].after - 30.0).abs() < f64::EPSILON);
        let parts = Expected::Parts { session: session.clone(), count: 2 };
        assert_eq!(*what[2], What::Expect(parts));
        assert_eq!(*what[3], What::Mishap { mishap: Mishap::Restarts, session: None });
        let deletes = What::Mishap { mishap: Mishap::DeletesStream, session: Some(session) };
        assert_eq!(*what[4], deletes);
        assert_eq!(story.steps[0].text, "product asks for A");
    }

    #[test]
    fn what_is_given_of_the_platform_are_its_switches() {
        let text = "given lag 7\ngiven page_size 2\ngiven patch_needs_name true\n\
                    given recording_hold_s null\ngiven quota_breach varied\n\
                    given recording_in_get null\n";
        let platform = Story::read(text).unwrap().platform;
        let expected = Behaviour {
            flags_lag_s: 7,
            page_size: 2,
            patch_needs_name: true,
            recording_hold_s: None,
            quota_breach: simulator::QuotaBreach::Varied,
            recording_in_get: simulator::FlagInGet::Null,
            ..Behaviour::default()
        };
        assert_eq!(platform, expected);
    }

    #[test]
    fn a_line_that_cannot_be_read_says_what_could_stand_there() {
        for (line, hint) in [
            ("somebody sings", "network"),
            ("product dances", "asks for"),
            ("portal explodes", "deletes_stream"),
            ("expect A flies", "is STATUS"),
            ("+x product ends A", "seconds"),
            ("given wings 2", "page_size"),
            ("given page_size many", "page_size cannot be many"),
        ] {
            let error = format!("{:#}", Story::read(&format!("\n{line}")).unwrap_err());
            assert!(error.starts_with("line 2") && error.contains(hint), "{error}");
        }
    }
}
