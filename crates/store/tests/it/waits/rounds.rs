//! Waits whose job recurs or whose start was not marked: each run has its own, and no other's.

use super::*;

/// A job due at once after a round in which it waited for an event of a subject.
async fn after_a_round(w: &World, subject: &Subject) -> (Run, EventWait) {
    let run = w.start(w.enqueue().await).await;
    let awaits = awaits(subject, 0);
    let begin = Begin::Event { awaits: awaits.clone(), timeout: Duration::from_hours(1) };
    let step = w.begin(&run, "approved", begin).await;
    let (job_slice, until) = (run.slice, step.until.unwrap());
    let wait = EventWait { job_slice, job: run.id, step: step.name, awaits, until };
    w.store.await_event(&wait).await.unwrap();
    w.end(&run, Ending::Again { after: Duration::ZERO }).await;
    (w.start(run.id).await, wait)
}

/// Two subjects of one slice.
fn neighbours(w: &World) -> [Subject; 2] {
    let named = |n| Subject::from_stored(format!("orders/{n}"));
    let first = named(1);
    let is_beside = |other: &Subject| w.store.slice_of(other) == w.store.slice_of(&first);
    let second = (2..1_000).map(named).find(is_beside).unwrap();
    [first, second]
}

#[tokio::test]
async fn a_wait_of_an_earlier_round_tells_nothing_to_a_later_one_of_its_name() {
    for w in both().await {
        let [earlier, later] = neighbours(&w);
        let (run, _) = after_a_round(&w, &earlier).await;
        let awaited = awaits(&later, 0);
        let timeout = Duration::from_hours(1);
        let begin = Begin::Event { awaits: awaited.clone(), timeout };
        let step = w.begin(&run, "approved", begin).await;
        let until = step.until.unwrap();
        let wait = EventWait {
            job_slice: run.slice,
            job: run.id,
            step: step.name,
            awaits: awaited,
            until,
        };
        w.store.await_event(&wait).await.unwrap();
        w.wait(&run, "approved").await;
        react(&w, &earlier).await;
        assert_eq!(w.relay().await, 1, "{}: its wait is still listed", w.name);
        assert!(!w.is_due(run.id).await, "{}: it is about another subject", w.name);
        let position = react(&w, &later).await;
        assert_eq!(w.relay().await, 1, "{}", w.name);
        let steps = w.store.steps(run.slice, run.id).await.unwrap();
        let place = json!({"slice": w.store.slice_of(&later), "position": position});
        assert_eq!(steps[0].value, Some(place), "{}", w.name);
    }
}

#[tokio::test]
async fn of_events_for_both_rounds_at_once_the_later_one_gets_its_own() {
    for w in both().await {
        let [earlier, later] = neighbours(&w);
        let (run, wait) = after_a_round(&w, &earlier).await;
        let (awaits, timeout) = (awaits(&later, 0), Duration::from_hours(1));
        let begin = Begin::Event { awaits: awaits.clone(), timeout };
        w.begin(&run, "approved", begin).await;
        w.store.await_event(&EventWait { awaits, ..wait }).await.unwrap();
        w.wait(&run, "approved").await;
        w.store.append_one(event(&earlier, "{}")).await.unwrap();
        let position = react(&w, &later).await;
        assert_eq!(w.relay().await, 2, "{}", w.name);
        let steps = w.store.steps(run.slice, run.id).await.unwrap();
        let place = json!({"slice": w.store.slice_of(&later), "position": position});
        assert_eq!(steps[0].value, Some(place), "{}", w.name);
    }
}

#[tokio::test]
async fn a_word_of_an_earlier_round_about_the_same_subject_comes_too_late() {
    for w in both().await {
        let [subject, _] = neighbours(&w);
        let (run, wait) = after_a_round(&w, &subject).await;
        let position = react(&w, &subject).await;
        let slice = w.store.slice_of(&subject);
        let begin =
            Begin::Event { awaits: awaits(&subject, position), timeout: Duration::from_hours(1) };
        w.begin(&run, "approved", begin).await;
        w.wait(&run, "approved").await;
        w.store.relay(run.slice, &[wait.met(slice, position)]).await.unwrap();
        assert!(!w.is_due(run.id).await, "{}: this wait is for a later one", w.name);
        w.store.relay(run.slice, &[wait.met(slice, position + 1)]).await.unwrap();
        assert!(w.is_due(run.id).await, "{}", w.name);
    }
}

#[tokio::test]
async fn a_wait_that_ends_later_outlives_an_earlier_one_of_its_name() {
    for w in both().await {
        let [subject, other] = neighbours(&w);
        let run = w.start(w.enqueue().await).await;
        let hour = Duration::from_hours(1);
        let now: Timestamp = SystemTime::now().into();
        let wait = |until: Timestamp| EventWait {
            job_slice: run.slice,
            job: run.id,
            step: "approved".to_owned(),
            awaits: awaits(&subject, 0),
            until,
        };
        w.store.await_event(&wait(now - hour)).await.unwrap();
        w.store.await_event(&wait(now + hour)).await.unwrap();
        // What is said again of the earlier one does not cut the later one short.
        w.store.await_event(&wait(now - hour)).await.unwrap();
        react(&w, &other).await;
        react(&w, &subject).await;
        assert_eq!(w.relay().await, 1, "{}: it was forgotten with the earlier one", w.name);
    }
}

#[tokio::test]
async fn a_run_whose_start_was_not_marked_has_steps_and_waits_for_them() {
    for w in both().await {
        let id = w.enqueue().await;
        let due = w.due().await.into_iter().find(|job| job.id == id).unwrap();
        let epoch = w.epoch(due.slice);
        let run = |attempt| Run { id, slice: due.slice, epoch, attempt };
        assert_eq!(w.try_begin(&run(2), "a", Begin::Value(json!(2))).await.unwrap(), None);
        w.begin(&run(1), "a", Begin::Value(json!(1))).await;
        w.begin(&run(1), "night", Begin::Sleep(Duration::ZERO)).await;
        w.wait(&run(1), "night").await;
        let due = w.due().await.into_iter().find(|job| job.id == id).unwrap();
        assert_eq!(due.attempt, 1, "{}: its start counts", w.name);
        let late = w.try_begin(&run(1), "b", Begin::Value(json!(1))).await.unwrap();
        assert_eq!(late, None, "{}: that run has ended", w.name);
        let marked = w.start(id).await;
        assert_eq!(marked.attempt, 2, "{}", w.name);
        let beside = w.try_begin(&run(3), "b", Begin::Value(json!(1))).await.unwrap();
        assert_eq!(beside, None, "{}: another run is the present one", w.name);
        assert_eq!(w.store.steps(due.slice, id).await.unwrap().len(), 2, "{}", w.name);
    }
}
