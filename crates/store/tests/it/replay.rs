//! Rebuilds that are interrupted, met by others, taken back; verification; what was known when.

use std::collections::HashSet;

use domain::event::{AccountDeleted, Event, NewEvent};
use domain::ids::{Subject, Timestamp};
use domain::scenario::SOURCE;
use serde_json::json;
use store::Consumer::React;
use store::{
    AsOf, Digest, Error, Lease, Parting, RebuildOptions, RebuildProgress, RebuildState, Rebuilt,
    Store,
};
use uuid::Uuid;

use crate::rebuild::{append, applied, apply_all, leases, live, log, rebuild};
use crate::support::{Db, LONG, db, until};

/// The states in which a rebuild can be interrupted.
const OPEN: [RebuildState; 6] = [
    RebuildState::Created,
    RebuildState::Folding,
    RebuildState::Loading,
    RebuildState::Indexing,
    RebuildState::CatchingUp,
    RebuildState::Ready,
];

/// Rebuilds up to a state, as a process that is killed there.
async fn rebuild_up_to(store: &Store, state: RebuildState) -> Result<Rebuilt, Error> {
    let options = RebuildOptions { stop_in: Some(state), ..RebuildOptions::default() };
    store.rebuild(&options, &RebuildProgress::default()).await
}

/// Says `count` times that an account was deleted, and applies it as the live consumer does.
async fn more(db: &Db, leases: &mut [Lease], count: u32) {
    for n in 0..count {
        let account = format!("more-{n}");
        let event = Event::AccountDeleted(AccountDeleted { account: account.clone() });
        let subject = Subject::account(SOURCE, &account);
        let at = Timestamp::from_timestamp(1_700_000_000 + i64::from(n), 0).unwrap();
        let slice = db.store.slice_of(&subject);
        db.store.append_one(NewEvent::new(subject, &event, at, Uuid::now_v7())).await.unwrap();
        let lease = &mut leases[usize::try_from(slice).unwrap()];
        *lease = live(&db.store, *lease).await;
    }
}

/// Everything that the catalogue says of the live tables, their columns, constraints, indexes and
/// privileges.
async fn catalogue(db: &Db) -> Vec<String> {
    sqlx::query_scalar(
        "SELECT format('%s %s %s %s %s', c.relname, c.relkind, c.reloptions, obj_description(c.oid, 'pg_class'),
                       pg_get_userbyid(c.relowner))
           FROM pg_class c WHERE c.relnamespace = 'tallylight'::regnamespace
         UNION ALL SELECT format('%s grants %s', c.relname, (SELECT array_agg(x::text ORDER BY x::text) FROM unnest(c.relacl) AS x))
           FROM pg_class c WHERE c.relnamespace = 'tallylight'::regnamespace
         UNION ALL SELECT format('%s.%s %s %s %s %s %s %s', c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
                                 a.attnotnull, a.attstorage, a.attcompression, pg_get_expr(d.adbin, d.adrelid),
                                 col_description(c.oid, a.attnum))
           FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
           LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
          WHERE c.relnamespace = 'tallylight'::regnamespace
         UNION ALL SELECT format('%s: %s', n.conname, pg_get_constraintdef(n.oid))
           FROM pg_constraint n WHERE n.connamespace = 'tallylight'::regnamespace
         UNION ALL SELECT pg_get_indexdef(i.indexrelid)
           FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
          WHERE c.relnamespace = 'tallylight'::regnamespace
         ORDER BY 1",
    )
    .fetch_all(&db.pool)
    .await
    .unwrap()
}

async fn digest(db: &Db) -> Digest {
    db.store.digest().await.unwrap()
}

async fn state(db: &Db) -> RebuildState {
    db.store.rebuild_status().await.unwrap().unwrap().state
}

#[tokio::test]
async fn a_rebuild_is_gone_on_with_from_every_state() {
    let (db, mut leases, _, _) = applied().await;
    db.sql("UPDATE tallylight.session SET status = 'forged'").await;
    for interrupted in OPEN {
        rebuild_up_to(&db.store, interrupted).await.unwrap();
        assert_eq!(state(&db).await, interrupted);
        // The consumer goes on while nothing rebuilds.
        more(&db, &mut leases, 3).await;
    }
    let rebuilt = rebuild(&db.store).await;
    assert_eq!(rebuilt.state, Some(RebuildState::Live));
    let heads = "SELECT sum(position)::bigint FROM tallylight.slice_head";
    assert_eq!(rebuilt.events, u64::try_from(db.number(heads).await).unwrap(), "each event once");
    assert_clean(&db).await;
    assert_eq!(
        db.number("SELECT count(*) FROM tallylight.session WHERE status = 'forged'").await,
        0
    );
}

#[tokio::test]
async fn a_rebuild_is_aborted_in_every_state_and_leaves_the_live_rows() {
    let (db, _, before, _) = applied().await;
    for aborted in OPEN {
        rebuild_up_to(&db.store, aborted).await.unwrap();
        assert!(db.store.abort_rebuild().await.unwrap());
        assert_eq!(state(&db).await, RebuildState::Aborted);
        let tables =
            "SELECT count(*) FROM pg_class WHERE relnamespace = 'tallylight_shadow'::regnamespace";
        assert_eq!(db.number(tables).await, 0, "{aborted:?}");
    }
    assert!(!db.store.abort_rebuild().await.unwrap(), "nothing is in work");
    assert_eq!(digest(&db).await, before);
}

#[tokio::test]
async fn a_run_whose_rebuild_is_aborted_fails_at_its_next_step() {
    let (db, _, before, _) = applied().await;
    rebuild_up_to(&db.store, RebuildState::Ready).await.unwrap();
    // The swap waits for a consumer in the middle of its transaction.
    let mut open = db.pool.begin().await.unwrap();
    sqlx::query(
        "SELECT FROM tallylight.checkpoint WHERE consumer = 'react' AND slice = 0 FOR UPDATE",
    )
    .execute(&mut *open)
    .await
    .unwrap();
    let store = db.store.clone();
    let running = tokio::spawn(async move {
        store.rebuild(&RebuildOptions::default(), &RebuildProgress::default()).await
    });
    db.blocked(1).await;
    assert!(db.store.abort_rebuild().await.unwrap());
    drop(open);
    let error = running.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::RebuildLost { .. }), "{error:?}");
    assert_eq!(digest(&db).await, before);
}

#[tokio::test]
async fn swapped_tables_look_exactly_as_migrated_ones() {
    let (db, _, rows, _) = applied().await;
    db.sql("ALTER TABLE tallylight.session SET (fillfactor = 70)").await;
    db.sql("GRANT SELECT (status) ON tallylight.session TO PUBLIC").await;
    db.sql("GRANT SELECT ON tallylight.video TO tallylight_ingest WITH GRANT OPTION").await;
    db.sql("COMMENT ON INDEX tallylight.session_id IS 'a comment'").await;
    let before = catalogue(&db).await;
    for _ in 0..2 {
        rebuild(&db.store).await;
        pretty_equal(&before, &catalogue(&db).await);
    }
    db.store.roll_back().await.unwrap();
    pretty_equal(&before, &catalogue(&db).await);
    assert_eq!(digest(&db).await, rows);
}

fn pretty_equal(before: &[String], after: &[String]) {
    let (before, after): (HashSet<_>, HashSet<_>) =
        (before.iter().collect(), after.iter().collect());
    let differing: Vec<_> = before.symmetric_difference(&after).collect();
    assert!(differing.is_empty(), "{differing:#?}");
}

#[tokio::test]
async fn a_batch_folded_from_old_rows_is_fenced_by_the_swap() {
    let (db, leases, _, _) = applied().await;
    rebuild(&db.store).await;
    let reaction = store::Reaction { to: leases[0].position, ..store::Reaction::default() };
    let committed = db.store.commit_reaction(&leases[0], &reaction, LONG).await;
    assert!(matches!(committed, Err(Error::Fenced { slice: 0 })), "{committed:?}");
    // And the slice is free at once.
    db.claim(React, 0).await;
}

#[tokio::test]
async fn reads_and_prepared_statements_go_on_through_swaps() {
    let (db, _, _, _) = applied().await;
    let id: Uuid = sqlx::query_scalar("SELECT session_id FROM tallylight.session LIMIT 1")
        .fetch_one(&db.pool)
        .await
        .unwrap();
    // One connection, whose statements are prepared before.
    let one = store::Config { max_connections: 1, ..store::Config::new(db.url.as_str()) };
    let reader = Store::connect(&one).await.unwrap();
    let told = reader.session(id).await.unwrap().unwrap();
    for _ in 0..2 {
        rebuild(&db.store).await;
        assert_eq!(reader.session(id).await.unwrap().unwrap(), told);
        assert_eq!(reader.live_streams(None, None, None, 10).await.unwrap().len(), 3);
    }
}

#[tokio::test]
async fn a_second_rebuild_at_the_same_time_is_refused() {
    let (db, _, _, _) = applied().await;
    rebuild_up_to(&db.store, RebuildState::Ready).await.unwrap();
    let mut open = db.pool.begin().await.unwrap();
    sqlx::query(
        "SELECT FROM tallylight.checkpoint WHERE consumer = 'react' AND slice = 0 FOR UPDATE",
    )
    .execute(&mut *open)
    .await
    .unwrap();
    let store = db.store.clone();
    let first = tokio::spawn(async move { rebuild(&store).await });
    db.blocked(1).await;
    let second = rebuild_up_to(&db.store, RebuildState::Live).await;
    assert!(matches!(second, Err(Error::RebuildRuns)), "{second:?}");
    assert!(matches!(db.store.roll_back().await, Err(Error::RebuildRuns)));
    drop(open);
    assert_eq!(first.await.unwrap().state, Some(RebuildState::Live));
}

#[tokio::test]
async fn a_projection_whose_shape_changed_meanwhile_is_refused() {
    let (db, _, before, _) = applied().await;
    rebuild_up_to(&db.store, RebuildState::Ready).await.unwrap();
    db.sql("ALTER TABLE tallylight.video ADD COLUMN note text").await;
    let gone_on = rebuild_up_to(&db.store, RebuildState::Live).await;
    assert!(matches!(gone_on, Err(Error::RebuildShape { .. })), "{gone_on:?}");
    assert!(db.store.abort_rebuild().await.unwrap());
    db.sql("ALTER TABLE tallylight.video DROP COLUMN note").await;
    rebuild(&db.store).await;
    assert_eq!(digest(&db).await, before);
}

#[tokio::test]
async fn what_is_bound_to_a_projection_refuses_a_rebuild() {
    let (db, _, _, _) = applied().await;
    db.sql("CREATE VIEW on_air AS SELECT * FROM tallylight.session WHERE status = 'live'").await;
    let refused = rebuild_up_to(&db.store, RebuildState::Live).await.unwrap_err();
    assert!(refused.to_string().contains("on_air"), "{refused}");
    db.sql("DROP VIEW on_air").await;
    rebuild(&db.store).await;
}

#[tokio::test]
async fn a_rollback_brings_the_generation_before_up_to_date() {
    let (db, mut leases, _, _) = applied().await;
    db.sql("UPDATE tallylight.session SET status = 'forged'").await;
    rebuild(&db.store).await;
    more(&db, &mut leases, 5).await;
    db.store.roll_back().await.unwrap();
    assert_eq!(state(&db).await, RebuildState::RolledBack);
    let forged = "SELECT count(*) FROM tallylight.session WHERE status = 'forged'";
    assert!(db.number(forged).await > 0, "the rows before the rebuild");
    assert_eq!(
        db.number("SELECT count(*) FROM tallylight.account WHERE account LIKE 'more-%'").await,
        5,
        "with what came since"
    );
    let again = db.store.roll_back().await;
    assert!(matches!(again, Err(Error::NoRollback { .. })), "{again:?}");
    more(&db, &mut leases, 6).await;
    rebuild(&db.store).await;
    assert_clean(&db).await;
}

#[tokio::test]
async fn a_hole_in_the_log_stops_a_rebuild_and_is_named() {
    let (db, leases, before, _) = applied().await;
    let slice = leases.iter().find(|lease| lease.position > 3).unwrap().slice;
    sqlx::raw_sql("ALTER TABLE tallylight.event DISABLE TRIGGER event_append_only")
        .execute(&db.pool)
        .await
        .unwrap();
    sqlx::query("DELETE FROM tallylight.event WHERE slice = $1 AND position = 3")
        .bind(slice)
        .execute(&db.pool)
        .await
        .unwrap();
    let stopped = rebuild_up_to(&db.store, RebuildState::Live).await;
    assert!(
        matches!(stopped, Err(Error::Hole { slice: s, after: 2, found: 4 }) if s == slice),
        "{stopped:?}"
    );
    assert!(matches!(db.store.verify_slice(slice).await, Err(Error::Hole { .. })));
    assert_eq!(digest(&db).await, before);
}

#[tokio::test]
async fn an_event_of_a_newer_version_stops_a_rebuild_and_is_named() {
    let (db, mut leases, _, _) = applied().await;
    let event = Event::AccountDeleted(AccountDeleted { account: "new".to_owned() });
    let subject = Subject::account(SOURCE, "new");
    let slice = db.store.slice_of(&subject);
    let event = NewEvent {
        schema_version: 2,
        ..NewEvent::new(subject, &event, Timestamp::default(), Uuid::now_v7())
    };
    db.store.append_one(event).await.unwrap();
    // Applied by a newer worker.
    let at = usize::try_from(slice).unwrap();
    leases[at] = live(&db.store, leases[at]).await;
    let stopped = rebuild_up_to(&db.store, RebuildState::Live).await.unwrap_err();
    let Error::Unfoldable { slice: named, position, .. } = stopped else { panic!("{stopped}") };
    assert_eq!((named, position), (slice, leases[at].position));
}

/// Every slice is what the log folds to.
async fn assert_clean(db: &Db) {
    for slice in db.store.slices().slices() {
        let verified = db.store.verify_slice(slice).await.unwrap();
        assert_eq!(verified.differing, 0, "{:#?}", verified.differences);
    }
}

#[tokio::test]
async fn a_verification_of_what_is_right_finds_nothing() {
    let (db, _, rows, _) = applied().await;
    let mut compared = 0;
    for slice in db.store.slices().slices() {
        let verified = db.store.verify_slice(slice).await.unwrap();
        assert_eq!((verified.differing, verified.differences.len()), (0, 0));
        compared += verified.rows;
    }
    assert_eq!(i64::try_from(compared).unwrap(), rows.rows);
}

#[tokio::test]
async fn samples_of_as_many_days_are_all_slices_and_none_is_empty() {
    let db = db().await;
    for (of, days) in [(1, 1), (5, 5), (16, 16), (1_000, 16)] {
        let mut all = HashSet::new();
        for day in 0..days {
            let sample = db.store.sample(of, Timestamp::from_timestamp(day * 86_400, 0).unwrap());
            assert!(!sample.is_empty() && all.is_disjoint(&sample.iter().copied().collect()));
            all.extend(sample);
        }
        assert_eq!(all.len(), 16, "1/{of}");
    }
}

#[tokio::test]
async fn a_tampered_row_is_found_and_traced_to_its_event() {
    let (db, _, _, _) = applied().await;
    let row = sqlx::query_as::<_, (i16, String)>(
        "UPDATE tallylight.live_stream SET deleted = true
          WHERE live_stream_id = (SELECT min(live_stream_id) FROM tallylight.live_stream)
      RETURNING slice, source || '/stream/' || live_stream_id",
    )
    .fetch_one(&db.pool)
    .await
    .unwrap();
    let verified = db.store.verify_slice(row.0).await.unwrap();
    assert_eq!(verified.differing, 1);
    let difference = &verified.differences[0];
    assert_eq!(difference.table, "live_stream");
    assert_eq!(difference.columns, ["deleted"]);
    assert_eq!(difference.subject.as_ref().unwrap().as_str(), row.1);
    assert!(matches!(difference.parting, Parting::NeverEqual { .. }), "{:?}", difference.parting);
}

#[tokio::test]
async fn a_row_that_missed_an_event_is_traced_to_that_event() {
    let (db, mut leases, _, _) = applied().await;
    let subject = Subject::account(SOURCE, "late");
    let slice = db.store.slice_of(&subject);
    let at = usize::try_from(slice).unwrap();
    let event = Event::AccountDeleted(AccountDeleted { account: "late".to_owned() });
    let event = NewEvent::new(subject.clone(), &event, Timestamp::default(), Uuid::now_v7());
    db.store.append_one(event).await.unwrap();
    leases[at] = live(&db.store, leases[at]).await;
    db.sql("DELETE FROM tallylight.account WHERE account = 'late'").await;
    db.sql("INSERT INTO tallylight.account VALUES (5, 'gcore-main', 'stranger', now(), 1)").await;
    let verified = db.store.verify_slice(slice).await.unwrap();
    let lost = verified.differences.iter().find(|d| d.key["account"] == json!("late")).unwrap();
    assert_eq!((&lost.live, lost.parting), (&None, Parting::At(leases[at].position)));
    let verified = db.store.verify_slice(5).await.unwrap();
    let stranger =
        verified.differences.iter().find(|d| d.key["account"] == json!("stranger")).unwrap();
    assert_eq!((&stranger.folded, stranger.parting), (&None, Parting::NoEvent));
}

/// A database with applied sessions but for one live stream, which is set aside from its first event.
async fn with_a_stream_set_aside() -> (Db, Vec<Lease>, Subject) {
    let db = db().await;
    let log = log();
    append(&db.store, &log).await;
    let mut claimed = leases(&db).await;
    let stream = log.iter().map(|e| &e.subject).find(|s| s.as_str().contains("/stream/")).unwrap();
    apply_all(&db.store, &mut claimed, &HashSet::from([stream.clone()])).await;
    (db, claimed, stream.clone())
}

#[tokio::test]
async fn parked_subjects_are_named_and_not_compared_with_what_they_wait_for() {
    let (db, _, stream) = with_a_stream_set_aside().await;
    let stream = &stream;
    let slice = db.store.slice_of(stream);
    let verified = db.store.verify_slice(slice).await.unwrap();
    assert_eq!(verified.differing, 0, "{:#?}", verified.differences);
    assert_eq!(verified.parked, std::slice::from_ref(stream));
}

#[tokio::test]
async fn a_subject_retried_while_a_rebuild_is_in_work_is_folded_anew() {
    let (db, _, stream) = with_a_stream_set_aside().await;
    let stream = &stream;
    rebuild_up_to(&db.store, RebuildState::CatchingUp).await.unwrap();
    // As a retry does: what was set aside is not any more. Its live rows are not what is asked.
    db.sql("DELETE FROM tallylight.parked").await;
    rebuild(&db.store).await;
    assert_clean(&db).await;
    let (state, _) = db.store.state_as_of(stream, None).await.unwrap().unwrap();
    let live = db.store.load_states(db.store.slice_of(stream), std::slice::from_ref(stream)).await;
    assert_eq!(live.unwrap()[stream], state);
}

#[tokio::test]
async fn a_log_that_lies_in_another_order_comes_to_the_same() {
    let (db, _, before, _) = applied().await;
    let month: String =
        sqlx::query_scalar("SELECT DISTINCT tableoid::regclass::text FROM tallylight.event")
            .fetch_one(&db.pool)
            .await
            .unwrap();
    // By subject: the events of a slice lie far from those before and behind them.
    let index = format!("{}_subject_position_idx", month.trim_start_matches("tallylight."));
    let cluster = format!("CLUSTER {month} USING {index}");
    sqlx::raw_sql(sqlx::AssertSqlSafe(cluster)).execute(&db.pool).await.unwrap();
    let disorder = db
        .number(
            "SELECT count(*) FROM (SELECT position, row_number() OVER (PARTITION BY slice ORDER BY ctid) AS nth
                                     FROM tallylight.event) AS e WHERE position <> nth",
        )
        .await;
    assert!(disorder > 0);
    rebuild(&db.store).await;
    assert_eq!(digest(&db).await, before);
}

#[tokio::test]
async fn events_between_a_retry_and_the_swap_are_in_the_subject_that_is_folded_anew() {
    let (db, mut claimed, stream) = with_a_stream_set_aside().await;
    let stream = &stream;
    rebuild_up_to(&db.store, RebuildState::CatchingUp).await.unwrap();
    db.sql("DELETE FROM tallylight.parked").await;
    // What the live consumer makes of it is not asked: the swap puts the fold in its place.
    let at = usize::try_from(db.store.slice_of(stream)).unwrap();
    let deleted = json!({"type": "stream", "message": {"stream": {"id": 1, "deleted": true}}});
    let event = NewEvent {
        event_type: "WebhookReceived".to_owned(),
        ..crate::support::event(stream, deleted.to_string())
    };
    for event in [event, crate::support::event(stream, "{}")] {
        db.store.append_one(event).await.unwrap();
        claimed[at] = live(&db.store, claimed[at]).await;
    }
    rebuild(&db.store).await;
    assert_clean(&db).await;
    let last = db.number(
        "SELECT max(position) FROM tallylight.subject_state WHERE subject LIKE '%/stream/%'",
    );
    assert!(last.await >= claimed[at].position - 1, "the later events are folded");
}

#[tokio::test]
async fn a_subject_is_folded_anew_while_consumers_work() {
    let (db, _, _) = with_a_stream_set_aside().await;
    rebuild_up_to(&db.store, RebuildState::Ready).await.unwrap();
    db.sql("DELETE FROM tallylight.parked").await;
    // Whoever reads the log waits, and is looked at.
    let mut open = db.pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE tallylight.event").execute(&mut *open).await.unwrap();
    let store = db.store.clone();
    let rebuilding = tokio::spawn(async move { rebuild(&store).await });
    let holds = until(async || {
        sqlx::query_scalar::<_, bool>(
            "SELECT EXISTS (SELECT FROM pg_locks h WHERE h.pid = w.pid AND h.granted
                               AND h.relation = 'tallylight.checkpoint'::regclass)
               FROM pg_locks w WHERE w.relation = 'tallylight.event'::regclass AND NOT w.granted",
        )
        .fetch_optional(&db.pool)
        .await
        .unwrap()
    })
    .await;
    open.rollback().await.unwrap();
    assert!(!holds, "no checkpoint is locked meanwhile");
    assert_eq!(rebuilding.await.unwrap().state, Some(RebuildState::Live));
    assert_clean(&db).await;
}

#[tokio::test]
async fn a_swap_that_takes_too_long_gives_the_checkpoints_free_and_is_tried_again() {
    let (db, mut leases, _, _) = applied().await;
    rebuild_up_to(&db.store, RebuildState::Ready).await.unwrap();
    for statement in [
        "CREATE TABLE public.slow ()",
        "INSERT INTO public.slow DEFAULT VALUES",
        "ALTER FUNCTION tallylight.refuse_bound_projections() RENAME TO refuse_bound",
        "CREATE FUNCTION tallylight.refuse_bound_projections() RETURNS void LANGUAGE plpgsql AS $$
         BEGIN PERFORM pg_sleep(600) FROM public.slow; PERFORM tallylight.refuse_bound(); END $$",
    ] {
        db.sql(statement).await;
    }
    let store = db.store.clone();
    let rebuilding = tokio::spawn(async move { rebuild(&store).await });
    until(async || {
        let asleep = "SELECT count(*) FROM pg_stat_activity
                       WHERE datname = current_database() AND wait_event = 'PgSleep'";
        (db.number(asleep).await > 0).then_some(())
    })
    .await;
    more(&db, &mut leases, 3).await;
    db.sql("DELETE FROM public.slow").await;
    assert_eq!(rebuilding.await.unwrap().state, Some(RebuildState::Live));
    assert_clean(&db).await;
}

#[tokio::test]
async fn a_verification_and_a_swap_do_not_meet() {
    let (db, _, before, _) = applied().await;
    // Verifying waits between its snapshot and the rows.
    db.sql("ALTER FUNCTION tallylight.verify_put_aside(smallint) RENAME TO put_aside").await;
    db.sql(
        "CREATE FUNCTION tallylight.verify_put_aside(p_slice smallint) RETURNS void LANGUAGE plpgsql AS $$
         BEGIN PERFORM pg_advisory_xact_lock(4711); PERFORM tallylight.put_aside(p_slice); END $$",
    )
    .await;
    let mut gate = db.pool.begin().await.unwrap();
    sqlx::query("SELECT pg_advisory_xact_lock(4711)").execute(&mut *gate).await.unwrap();
    let slice = sqlx::query_scalar("SELECT min(slice) FROM tallylight.session")
        .fetch_one(&db.pool)
        .await
        .unwrap();
    let store = db.store.clone();
    let verifying = tokio::spawn(async move { store.verify_slice(slice).await.unwrap() });
    db.blocked(1).await;
    let store = db.store.clone();
    let rebuilding = tokio::spawn(async move { rebuild(&store).await });
    let waits = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND NOT granted";
    until(async || (db.number(waits).await > 0 || rebuilding.is_finished()).then_some(())).await;
    gate.rollback().await.unwrap();
    let verified = verifying.await.unwrap();
    assert!(verified.rows > 0, "something is compared");
    assert_eq!(verified.differing, 0, "{:#?}", verified.differences);
    assert_eq!(rebuilding.await.unwrap().state, Some(RebuildState::Live));
    assert_eq!(digest(&db).await, before);
}

#[tokio::test]
async fn a_swap_waits_for_a_long_reader_and_lets_others_read() {
    let (db, _, before, _) = applied().await;
    rebuild_up_to(&db.store, RebuildState::Ready).await.unwrap();
    let mut reader = db.pool.begin().await.unwrap();
    sqlx::query("SELECT count(*) FROM tallylight.session").execute(&mut *reader).await.unwrap();
    let store = db.store.clone();
    let rebuilding = tokio::spawn(async move { rebuild(&store).await });
    db.blocked(1).await;
    // It gives way after 100 ms each time: others read, and the swap is tried again.
    for _ in 0..3 {
        assert_eq!(digest(&db).await, before);
    }
    assert!(!rebuilding.is_finished());
    reader.rollback().await.unwrap();
    until(async || rebuilding.is_finished().then_some(())).await;
    assert_eq!(rebuilding.await.unwrap().state, Some(RebuildState::Live));
}

#[tokio::test]
async fn a_session_is_told_as_it_was_known() {
    let (db, _, _, _) = applied().await;
    let id: Uuid =
        sqlx::query_scalar("SELECT session_id FROM tallylight.session ORDER BY 1 LIMIT 1")
            .fetch_one(&db.pool)
            .await
            .unwrap();
    let now = db.store.session(id).await.unwrap().unwrap();
    let stream = Subject::live_stream(SOURCE, now.live_stream.unwrap());
    let then = |at| db.store.session_as_of(SOURCE, id, at);
    let far = AsOf::Time(Timestamp::from_timestamp(4_000_000_000, 0).unwrap());
    let told = then(far).await.unwrap().unwrap();
    assert_eq!(told.session, now);
    assert_eq!(
        told.live_stream,
        db.store.live_stream(SOURCE, now.live_stream.unwrap()).await.unwrap()
    );
    assert_eq!(then(AsOf::Time(Timestamp::default())).await.unwrap(), None);
    // Event by event the session comes to what it is.
    let mut seen = Vec::new();
    for event in db.store.read_subject(&stream, 0, 1_000).await.unwrap() {
        let at = AsOf::Position { slice: event.slice, position: event.position };
        let (state, position) = db.store.state_as_of(&stream, Some(at)).await.unwrap().unwrap();
        assert_eq!(position, event.position);
        drop(state);
        seen.extend(then(at).await.unwrap().map(|then| then.session.status));
    }
    seen.dedup();
    assert!(seen.len() > 2, "{seen:?}");
    assert_eq!(seen.last(), Some(&now.status));
    let nowhere = then(AsOf::Position { slice: 0, position: 1_000_000 }).await;
    assert!(matches!(nowhere, Err(Error::Invalid { .. })), "{nowhere:?}");
}
