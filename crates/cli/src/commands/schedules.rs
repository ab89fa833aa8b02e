//! `schedules`: adds, lists, shows, pauses, resumes, runs and removes schedules.

use anyhow::{Context as _, Result, bail, ensure};
use domain::ids::{Subject, Timestamp};
use domain::schedule::Missed;
use serde_json::Value;
use store::{Kept, NewSchedule, Schedule, Store};

use crate::cli::{Schedules, SchedulesAdd};
use crate::config::Config;
use crate::database::with_store;
use crate::output::say;

/// Fires to come that are told.
const UPCOMING: usize = 3;

/// Past fires that `show` tells.
const PAST: i64 = 10;

/// Does what was asked for.
pub(crate) async fn run(config: Config, command: Schedules) -> Result<()> {
    with_store(&config, async |store| perform(store, command).await).await
}

async fn perform(store: &Store, command: Schedules) -> Result<()> {
    match command {
        Schedules::Add(options) => add(store, options).await,
        Schedules::List => list(store).await,
        Schedules::Show { name } => show(store, &name).await,
        Schedules::Pause { name } => {
            check(store.pause_schedule(&name).await?, &name)?;
            say(format!("{name} is paused"));
            Ok(())
        }
        Schedules::Resume { name } => {
            check(store.resume_schedule(&name).await?, &name)?;
            say(format!("{name} goes on: {}", upcoming(&find(store, &name).await?)));
            Ok(())
        }
        Schedules::Run { name } => {
            let job = store.run_schedule(&name).await?;
            let job = job.with_context(|| missing(&name))?;
            store.notifier().enqueued(store.slice_of(&Subject::schedule(&name)));
            say(job);
            Ok(())
        }
        Schedules::Remove { name } => {
            check(store.remove_schedule(&name).await?, &name)?;
            say(format!("{name} is removed; jobs that it enqueued stay"));
            Ok(())
        }
    }
}

async fn add(store: &Store, options: SchedulesAdd) -> Result<()> {
    let json = |text: &str| serde_json::from_str::<Value>(text);
    let missed = Missed::of(&options.missed, options.catch_up.unwrap_or(1));
    let missed = missed.context("read --missed: skip, coalesce or catch_up is needed")?;
    ensure!(
        matches!(missed, Missed::CatchUp(_)) == options.catch_up.is_some(),
        "use --catch-up N with --missed catch_up, and with nothing else"
    );
    let new = NewSchedule {
        name: options.name,
        cron: options.cron,
        time_zone: options.time_zone,
        kind: options.kind,
        args: json(&options.args).context("read the arguments as JSON")?,
        options: json(&options.options).context("read the options as JSON")?,
        missed,
        paused: options.paused.then_some(true),
    };
    let what = match store.put_schedule(&new).await? {
        Kept::Added => "is added",
        Kept::Changed => "is changed",
        Kept::Same => "was like this already",
    };
    say(format!("{} {what}: {}", new.name, upcoming(&find(store, &new.name).await?)));
    Ok(())
}

async fn list(store: &Store) -> Result<()> {
    let schedules = store.schedules().await?;
    if schedules.is_empty() {
        say("no schedules");
    }
    for schedule in schedules {
        let Schedule { name, cron, time_zone, kind, .. } = &schedule;
        say(format!("{name}  \"{cron}\" {time_zone}  {kind}  {}", upcoming(&schedule)));
    }
    Ok(())
}

async fn show(store: &Store, name: &str) -> Result<()> {
    let schedule = find(store, name).await?;
    say(format!("name      {}", schedule.name));
    say(format!("fires     \"{}\" in {}", schedule.cron, schedule.time_zone));
    say(format!("next      {}", upcoming(&schedule)));
    say(format!("job       {} {}", schedule.kind, schedule.args));
    say(format!("options   {}", schedule.options));
    let limit = match schedule.missed {
        Missed::CatchUp(limit) => format!(", at most {limit}"),
        Missed::Skip | Missed::Coalesce => String::new(),
    };
    say(format!("missed    {}{limit}", schedule.missed.name()));
    if let Some(error) = &schedule.last_error {
        say(format!("error     {error}"));
    }
    for fired in store.schedule_fires(name, PAST).await? {
        let by = if fired.by_hand { ", by hand" } else { "" };
        let job = fired.job.map_or_else(|| "none".to_owned(), |job| job.to_string());
        say(format!("  fired {}{by}: job {job}", time(fired.fire_at)));
    }
    Ok(())
}

async fn find(store: &Store, name: &str) -> Result<Schedule> {
    store.schedule(name).await?.with_context(|| missing(name))
}

fn check(is_there: bool, name: &str) -> Result<()> {
    if is_there { Ok(()) } else { bail!(missing(name)) }
}

fn missing(name: &str) -> String {
    format!("no schedule is called {name}; see `tallylight schedules list`")
}

/// Its next fires in words.
fn upcoming(schedule: &Schedule) -> String {
    let next = schedule.upcoming(UPCOMING);
    match next.as_slice() {
        [] if schedule.paused => "paused".to_owned(),
        [] => "never again".to_owned(),
        next => next.iter().copied().map(time).collect::<Vec<_>>().join(", "),
    }
}

fn time(at: Timestamp) -> String {
    at.format("%F %T UTC").to_string()
}
