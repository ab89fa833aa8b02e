//! The table of dispositions, read column by column.

use serde_json::{Value, json};

use super::*;

const WAIT: Disposition = Disposition::Wait { after: None };
/// The disposition of a bare status.
fn bare(operation: Operation, status: u16) -> Disposition {
    of_answer(operation, status, &Refusal::default(), None)
}

/// The disposition of a status with a body.
fn with_body(operation: Operation, status: u16, body: &Value) -> Disposition {
    of_answer(operation, status, &Refusal::read(body.to_string().as_bytes(), &[]), None)
}

/// The same text in every shape in which the platform's documents print errors, in a proxy's page,
/// and no text at all.
fn shapes(status: u16, text: &str) -> Vec<String> {
    vec![
        json!({"errors": {"name": [text]}}).to_string(),
        json!({"status": status, "error": text}).to_string(),
        json!({"error": text}).to_string(),
        json!({"data": [], "errors": [text]}).to_string(),
        json!({"exception_class": "SomeError", "message": text, "request_id": "0"}).to_string(),
        json!({"errors": {"errors": [text]}}).to_string(),
        format!("<html><head><title>{text}</title></head></html>"),
        text.to_owned(),
    ]
}

/// Status, and what it means for each class: read, list, change, create, act, delete, cancel.
/// 2xx are those with errors inside; 0 stands for no answer, be it a time-out or a lost connection.
#[rustfmt::skip]
const MATRIX: [(u16, [&str; 7]); 20] = [
    (200, ["refused",      "refused",      "refused",      "refused",      "refused",      "refused",      "refused"]),
    (201, ["refused",      "refused",      "refused",      "refused",      "refused",      "refused",      "refused"]),
    (204, ["refused",      "refused",      "refused",      "refused",      "refused",      "refused",      "refused"]),
    (400, ["refused",      "refused",      "refused",      "refused",      "refused",      "refused",      "refused"]),
    (401, ["unauthorized", "unauthorized", "unauthorized", "unauthorized", "unauthorized", "unauthorized", "unauthorized"]),
    (403, ["unauthorized", "unauthorized", "unauthorized", "unauthorized", "unauthorized", "unauthorized", "unauthorized"]),
    (404, ["wait",         "refused",      "wait",         "refused",      "wait",         "done",         "wait"]),
    (408, ["retry",        "retry",        "retry",        "ambiguous",    "ambiguous",    "retry",        "retry"]),
    (409, ["wait",         "wait",         "wait",         "wait",         "wait",         "wait",         "wait"]),
    (410, ["refused",      "refused",      "refused",      "refused",      "refused",      "done",         "refused"]),
    (412, ["refused",      "refused",      "refused",      "refused",      "refused",      "refused",      "done"]),
    (422, ["refused",      "refused",      "refused",      "refused",      "refused",      "refused",      "refused"]),
    (425, ["wait",         "wait",         "wait",         "wait",         "wait",         "wait",         "wait"]),
    (429, ["wait",         "wait",         "wait",         "wait",         "wait",         "wait",         "wait"]),
    (500, ["retry",        "retry",        "retry",        "ambiguous",    "ambiguous",    "retry",        "retry"]),
    (502, ["retry",        "retry",        "retry",        "ambiguous",    "ambiguous",    "retry",        "retry"]),
    (503, ["retry",        "retry",        "retry",        "ambiguous",    "ambiguous",    "retry",        "retry"]),
    (504, ["retry",        "retry",        "retry",        "ambiguous",    "ambiguous",    "retry",        "retry"]),
    (520, ["retry",        "retry",        "retry",        "ambiguous",    "ambiguous",    "retry",        "retry"]),
    (0,   ["retry",        "retry",        "retry",        "ambiguous",    "ambiguous",    "retry",        "retry"]),
];

#[test]
fn every_status_means_the_same_in_every_shape() {
    for &operation in Operation::ALL {
        let class = operation.class();
        for (status, row) in MATRIX {
            let expected = match class {
                Class::Read => row[0],
                Class::List => row[1],
                Class::Change => row[2],
                Class::Create => row[3],
                Class::Act => row[4],
                Class::Delete => row[5],
                Class::Cancel => row[6],
            };
            if status == 0 {
                assert_eq!(of_unknown(operation, None).as_str(), expected, "{operation}");
                continue;
            }
            for body in shapes(status, "is odd") {
                let refusal = Refusal::read(body.as_bytes(), &[]);
                let found = of_answer(operation, status, &refusal, None).as_str();
                let is_page_on_gone = expected == "done" && refusal.is_markup();
                let expected = if is_page_on_gone { "wait" } else { expected };
                assert_eq!(found, expected, "{operation} {status} {body}");
            }
        }
    }
}

#[test]
fn what_a_text_names_counts_in_every_shape() {
    let rows = [
        ("Live streams limit is exceeded", "quota"),
        ("No space for recording the stream.", "quota"),
        ("Feature is disabled. Contact support to enable.", "feature_missing"),
        ("Too many requests", "wait"),
    ];
    for &operation in Operation::ALL {
        for (text, expected) in rows {
            for status in [400, 403, 422, 429] {
                for body in shapes(status, text) {
                    let refusal = Refusal::read(body.as_bytes(), &[]);
                    let found = of_answer(operation, status, &refusal, None).as_str();
                    assert_eq!(found, expected, "{operation} {status} {body}");
                }
            }
        }
    }
}

#[test]
fn the_other_statuses_mean_the_same_for_all() {
    let rows = [
        (301, Disposition::Refused),
        (302, Disposition::Refused),
        (400, Disposition::Refused),
        (401, Disposition::Unauthorized),
        (402, Disposition::Refused),
        (403, Disposition::Unauthorized),
        (405, Disposition::Refused),
        (409, WAIT),
        (413, Disposition::Refused),
        (415, Disposition::Refused),
        (422, Disposition::Refused),
        (425, WAIT),
        (429, WAIT),
    ];
    for &operation in Operation::ALL {
        for (status, expected) in rows {
            assert_eq!(bare(operation, status), expected, "{operation} {status}");
        }
    }
}

#[test]
fn what_has_ended_cannot_be_cancelled_and_that_is_the_goal() {
    for &operation in Operation::ALL {
        let is_cancel = operation == Operation::CancelAiTask;
        let expected = if is_cancel { Disposition::Done } else { Disposition::Refused };
        assert_eq!(bare(operation, 412), expected, "{operation}");
    }
}

#[test]
fn retry_after_turns_503_into_a_wait_and_is_passed_on() {
    let after = Some(Duration::from_secs(7));
    let none = Refusal::default();
    for &operation in Operation::ALL {
        let unknown = of_unknown(operation, None);
        for status in [503, 429, 425, 409] {
            let wait = Disposition::Wait { after };
            assert_eq!(of_answer(operation, status, &none, after), wait, "{operation} {status}");
        }
        let is_ambiguous = unknown == Disposition::Ambiguous;
        let expected = if is_ambiguous { unknown } else { Disposition::Retry { after } };
        assert_eq!(of_answer(operation, 500, &none, after), expected, "{operation}");
    }
}

#[test]
fn a_text_that_names_a_limit_is_a_quota_in_every_shape() {
    let bodies = [
        json!({"errors": {"active": ["Active streams limit reached"]}}),
        json!({"errors": {"name": ["Error text: No space for recording the stream."]}}),
        json!({"status": 422, "error": "Quota exceeded"}),
        json!({"error": "Queue limit reached (100), try later."}),
        json!({"exception_class": "QuotaLimitExceed", "message": "volume_size by 70"}),
        json!({"exception_class": "SomeError", "message": "the storage limit has been exceeded"}),
    ];
    for body in bodies {
        for status in [400, 403, 409, 422, 429] {
            let operation = Operation::UpdateStream;
            let disposition = with_body(operation, status, &body);
            assert_eq!(disposition, Disposition::Quota, "{status} {body}");
        }
        assert_eq!(with_body(Operation::CreateStream, 401, &body), Disposition::Unauthorized);
        assert_eq!(with_body(Operation::CreateStream, 500, &body), Disposition::Ambiguous);
    }
}

#[test]
fn a_rate_limit_is_a_wait_and_no_quota() {
    let bodies = [
        json!({"message": "Rate limit exceeded"}),
        json!({"error": "Too many requests, limit is 4 requests per second"}),
        json!({"error": "Request was throttled. Quota exceeded."}),
    ];
    for body in bodies {
        for status in [403, 429] {
            assert_eq!(with_body(Operation::CreateStream, status, &body), WAIT, "{status} {body}");
        }
    }
    let limit = Refusal::read(br#"{"error":"limit reached"}"#, &[]);
    let after = Some(Duration::from_secs(1));
    let disposition = of_answer(Operation::CreateStream, 429, &limit, after);
    assert_eq!(disposition, Disposition::Wait { after }, "Retry-After outweighs the text");
}

#[test]
fn a_limit_on_the_length_of_a_text_is_refused() {
    for text in [
        "is too long (limit is 255 characters)",
        "exceeds the maximum length of 4096",
        "namespace is unlimited",
    ] {
        let body = json!({"errors": {"name": [text]}});
        let disposition = with_body(Operation::CreateStream, 422, &body);
        assert_eq!(disposition, Disposition::Refused, "{text}");
    }
}

#[test]
fn a_disabled_feature_is_named_as_such() {
    let body = json!({"error": "Feature is disabled. Contact support to enable."});
    for &operation in Operation::ALL {
        assert_eq!(with_body(operation, 422, &body), Disposition::FeatureMissing, "{operation}");
    }
}

#[test]
fn the_gateways_forbidden_error_stands_for_capacity_and_not_for_rights() {
    let body = json!({"exception_class": "ForbiddenError", "message": "not now"});
    assert_eq!(with_body(Operation::CreateStream, 403, &body), Disposition::Quota);
    assert_eq!(with_body(Operation::CreateStream, 422, &body), Disposition::Refused);
}
