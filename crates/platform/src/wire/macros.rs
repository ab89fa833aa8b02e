//! Declares the platform's objects and the bodies of requests, each field once.
//!
//! A *kind* says how a field is read leniently and which type it then has; see [`super::fields`].

/// Declares an object as the platform shows it: the struct, how it is read, and `observed`.
///
/// `field: kind` reads the field of the same name, `field as "name": kind` another. Fields under
/// `unobserved` are read and left out of `observed`, because they change all the time or say
/// nothing that an event could need.
macro_rules! object {
    (
        $(#[$meta:meta])*
        $name:ident $what:literal {
            $($(#[$doc:meta])* $field:ident $(as $wire:literal)?: $kind:ident $(($of:ty))?,)*
        }
        $(unobserved {
            $($(#[$udoc:meta])* $ufield:ident $(as $uwire:literal)?: $ukind:ident $(($uof:ty))?,)*
        })?
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug)]
        #[non_exhaustive]
        pub struct $name {
            $($(#[$doc])* pub $field: $crate::wire::macros::kind!($kind $($of)?),)*
            $($($(#[$udoc])* pub $ufield: $crate::wire::macros::kind!($ukind $($uof)?),)*)?
        }

        impl $crate::wire::fields::Object for $name {
            const WHAT: &'static str = $what;

            fn read(fields: &$crate::wire::fields::Fields<'_>) -> Option<Self> {
                use $crate::wire::macros::{name, read};
                Some(Self {
                    $($field: read!(fields, name!($field $($wire)?), $kind),)*
                    $($($ufield: read!(fields, name!($ufield $($uwire)?), $ukind),)*)?
                })
            }

            fn observed(&self) -> serde_json::Value {
                use $crate::wire::macros::{name, shown};
                $crate::wire::fields::known([
                    $((name!($field $($wire)?), shown!(self.$field, $kind)),)*
                ])
            }
        }

        impl $name {
            /// The view for the event log: known fields under the platform's names, no secrets.
            pub fn observed(&self) -> serde_json::Value {
                $crate::wire::fields::Object::observed(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::wire::fields::deserialize(deserializer)
            }
        }
    };
}

/// The type of a field of a kind.
macro_rules! kind {
    (key) => { i64 };
    (id) => { Option<i64> };
    (ids) => { Option<Vec<i64>> };
    (integer) => { Option<i64> };
    (whole) => { Option<i64> };
    (amount) => { Option<f64> };
    (flag) => { Option<bool> };
    (text) => { Option<String> };
    (note) => { Option<String> };
    (text_or_json) => { Option<String> };
    (word) => { Option<String> };
    (texts) => { Option<Vec<String>> };
    (json) => { Option<serde_json::Value> };
    (time) => { Option<chrono::DateTime<chrono::Utc>> };
    (secret) => { Option<secrecy::SecretString> };
    (object $of:ty) => { Option<$of> };
    (objects $of:ty) => { Option<Vec<$of>> };
}

/// The name of a field on the wire.
macro_rules! name {
    ($field:ident) => {
        stringify!($field)
    };
    ($field:ident $wire:literal) => {
        $wire
    };
}

/// Reads a field of a kind; without its `key` there is no object.
macro_rules! read {
    ($fields:ident, $name:expr, key) => {
        $fields.id($name)?
    };
    ($fields:ident, $name:expr, $kind:ident) => {
        $fields.$kind($name)
    };
}

/// A field of a kind as JSON; null leaves it out.
macro_rules! shown {
    ($self:ident.$field:ident, time) => {
        $crate::wire::fields::time_value($self.$field)
    };
    ($self:ident.$field:ident, secret) => {
        serde_json::Value::Null
    };
    ($self:ident.$field:ident, object) => {
        $self.$field.as_ref().map($crate::wire::fields::Object::observed).into()
    };
    ($self:ident.$field:ident, objects) => {
        $crate::wire::fields::observed_list($self.$field.as_deref())
    };
    ($self:ident.$field:ident, ids) => {
        $self.$field.clone().into()
    };
    ($self:ident.$field:ident, text) => {
        $self.$field.clone().into()
    };
    ($self:ident.$field:ident, note) => {
        $self.$field.clone().into()
    };
    ($self:ident.$field:ident, word) => {
        $self.$field.clone().into()
    };
    ($self:ident.$field:ident, texts) => {
        $self.$field.clone().into()
    };
    ($self:ident.$field:ident, text_or_json) => {
        $self.$field.clone().into()
    };
    ($self:ident.$field:ident, $kind:ident) => {
        $self.$field.into()
    };
}

/// Declares the fields of a request's body, all of them optional: those that are `None` are not
/// sent. For creating, the platform says which it misses.
macro_rules! body {
    (
        $(#[$meta:meta])*
        $name:ident {
            $($(#[$attribute:meta])* $field:ident: $type:ty,)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, serde::Deserialize, serde::Serialize)]
        #[serde(default)]
        pub struct $name {
            $($(#[$attribute])* #[serde(skip_serializing_if = "Option::is_none")]
            pub $field: Option<$type>,)*
        }
    };
}

pub(in crate::wire) use {body, kind, name, object, read, shown};
