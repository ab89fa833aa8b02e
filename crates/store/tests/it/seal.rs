//! Sealed secrets: only with their key, only for their subject.

use store::{Error, SealingKey};

use crate::support::{db, subject_in};

#[tokio::test]
async fn a_seal_opens_with_its_key() {
    let db = db().await;
    let (key, subject) = (SealingKey::new([7; 32]), subject_in(&db.store, 1));
    assert_eq!(db.store.unseal(&key, &subject).await.unwrap(), None);
    for secret in [&b"rtmp://push/secret"[..], b"", b"second \0 \xff"] {
        db.store.seal(&key, &subject, secret).await.unwrap();
        assert_eq!(db.store.unseal(&key, &subject).await.unwrap().as_deref(), Some(secret));
    }
    assert_eq!(db.number("SELECT count(*) FROM tallylight.sealed").await, 1, "replaced");
}

#[tokio::test]
async fn a_seal_does_not_open_with_another_key() {
    let db = db().await;
    let subject = subject_in(&db.store, 1);
    db.store.seal(&SealingKey::new([7; 32]), &subject, b"secret").await.unwrap();
    let error = db.store.unseal(&SealingKey::new([8; 32]), &subject).await.unwrap_err();
    assert!(matches!(error, Error::Seal { .. }), "{error}");
}

#[tokio::test]
async fn a_seal_cannot_be_moved_to_another_subject_nor_changed() {
    let db = db().await;
    let key = SealingKey::new([7; 32]);
    let (mine, yours) = (subject_in(&db.store, 1), subject_in(&db.store, 1));
    db.store.seal(&key, &mine, b"secret").await.unwrap();
    sqlx::query("UPDATE tallylight.sealed SET subject = $1")
        .bind(yours.as_str())
        .execute(&db.pool)
        .await
        .unwrap();
    assert!(matches!(db.store.unseal(&key, &yours).await, Err(Error::Seal { .. })));
    sqlx::query("UPDATE tallylight.sealed SET subject = $1")
        .bind(mine.as_str())
        .execute(&db.pool)
        .await
        .unwrap();
    assert!(db.store.unseal(&key, &mine).await.unwrap().is_some());
    for damage in [
        "UPDATE tallylight.sealed SET ciphertext = set_byte(ciphertext, 0, get_byte(ciphertext, 0) # 1)",
        "UPDATE tallylight.sealed SET nonce = 'short'",
    ] {
        db.sql(damage).await;
        assert!(matches!(db.store.unseal(&key, &mine).await, Err(Error::Seal { .. })), "{damage}");
    }
}

#[tokio::test]
async fn equal_secrets_look_different_and_never_lie_open() {
    let db = db().await;
    let (key, subject) = (SealingKey::new([7; 32]), subject_in(&db.store, 1));
    let mut seen = std::collections::HashSet::new();
    for _ in 0..3 {
        db.store.seal(&key, &subject, b"a secret").await.unwrap();
        let stored: Vec<u8> =
            sqlx::query_scalar("SELECT nonce || ciphertext FROM tallylight.sealed")
                .fetch_one(&db.pool)
                .await
                .unwrap();
        assert!(!stored.windows(8).any(|w| w == b"a secret"));
        assert!(seen.insert(stored));
    }
    assert_eq!(format!("{key:?}"), "SealingKey([redacted])");
}
