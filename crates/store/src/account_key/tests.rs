//! Sealed forms that were written must open for ever.

use domain::personal::{Pseudonym, Sealed, SealedField};
use uuid::Uuid;

use super::*;

const PSEUDONYM: Pseudonym = Pseudonym(Uuid::from_u128(0x6f0c_2a90_b1d9_4a5e_8f3e_5a4c_7d2b_1e09));

const ROW: &str = "0a53c48930e159daa20687d5e579e610a533e7f1d758e563698a3b8d5245b22656985ad007b01731a59cc74099f2ce3aed83803e146aa12b0e76f7572f16e942215ef6682ffd455227d223";
const NAME: &str = "sealed:6f0c2a90b1d94a5e8f3e5a4c7d2b1e09:00000000000000000000000000000002:name:1XdfSbR4BNpRBWDy7oWyzIFybFPtK-HPKeZ-3eZT7XzE4g7xMnlh";
const CLIENT: &str = "sealed:6f0c2a90b1d94a5e8f3e5a4c7d2b1e09:00000000000000000000000000000002:client:WR4KnIu3kVv_pq1NNVL31QFYjWWMLHFFzkip9sXaZ_6Zlyjoo5Q6V2G-hn9jCNxim7CeHxQ8p8ogpgKaxeSzKaFtPQjLCGs7lPWROQQ";

fn bytes(hex: &str) -> Vec<u8> {
    let digits = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(digits).collect()
}

/// A row and values as they were once written, with the sealing key `[7; 32]`.
#[test]
fn what_was_sealed_once_opens_for_ever() {
    let (key, account) = unwrap(&SealingKey::new([7; 32]), PSEUDONYM, &bytes(ROW)).unwrap();
    assert_eq!(account, "ann@example.org");
    let open = |text: &str| {
        let sealed = Sealed::read(text).unwrap();
        let place = Sealed::place(sealed.key, sealed.session, sealed.field);
        String::from_utf8(key.decrypt(place.as_bytes(), &sealed.bytes).unwrap()).unwrap()
    };
    assert_eq!(open(NAME), "Ann at home");
    assert_eq!(open(CLIENT), r#"{"client_user_id":17,"data":{"course":"algebra"}}"#);
}

#[test]
fn equal_values_look_different() {
    let key = AccountKey { pseudonym: PSEUDONYM, key: SealingKey::new([1; 32]) };
    let seal = || key.seal(Uuid::nil(), SealedField::Name, b"Ann").unwrap();
    assert_ne!(seal(), seal());
}

#[test]
fn a_key_does_not_show_itself() {
    let key = AccountKey { pseudonym: PSEUDONYM, key: SealingKey::new([1; 32]) };
    let shown = format!("{key:?}");
    assert!(shown.contains("[redacted]") && !shown.contains("1, 1"), "{shown}");
}

#[test]
fn accounts_are_found_by_the_same_digest_for_ever() {
    assert_eq!(digest("ann@example.org").to_string(), "b3d4b10c-733c-849e-a8f9-5cb04e453bef");
}
