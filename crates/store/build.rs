//! Rebuilds the embedded migrations when their folder changes, and digests the code of the fold: a
//! rebuild of the projections is not continued by a build that folds otherwise.
//!
//! SQL is checked against the committed `.sqlx/`, also where this crate is a dependency of a program
//! whose own database `DATABASE_URL` names. Whoever sets `SQLX_OFFLINE` decides otherwise.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

const FOLD: &str = "../domain/src";

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-changed=../../migrations");
    println!("cargo:rerun-if-changed={FOLD}");
    println!("cargo:rerun-if-env-changed=SQLX_OFFLINE");
    if env::var_os("SQLX_OFFLINE").is_none() {
        println!("cargo:rustc-env=SQLX_OFFLINE=true");
    }
    let mut files = Vec::new();
    collect(Path::new(FOLD), &mut files)?;
    files.sort();
    let mut hash = Fnv::default();
    for file in files {
        hash.add(&fs::read(&file)?);
    }
    println!("cargo:rustc-env=FOLD_DIGEST={:016x}", hash.0);
    Ok(())
}

/// All files below a folder, those of tests left out.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.file_name().is_none_or(|name| name != "tests.rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// FNV-1a: short, and the same in every build.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
