//! What this machine keeps for an installation that brings its own database: generated secrets,
//! each in a file of its own that only its owner can read.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rand::RngExt;
use secrecy::SecretString;
use store::SealingKey;

use crate::config::{Config, digest};
use crate::database;

/// The file of the sealing key.
pub(crate) const SEALING_KEY: &str = "sealing-key";

/// The directory.
#[derive(Debug, Clone)]
pub(crate) struct Home {
    dir: PathBuf,
}

impl Home {
    /// Beside the managed cluster's directory.
    ///
    /// # Errors
    /// Where the directory cannot be made.
    pub(crate) fn beside(data_dir: &Path) -> Result<Self> {
        let dir = dir_beside(data_dir);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .with_context(|| format!("make {}", dir.display()))?;
        Ok(Self { dir })
    }

    /// The path of a secret.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The secret `name`: 64 hexadecimal digits, made when first asked for.
    ///
    /// # Errors
    /// Where the file can be neither read nor made.
    pub(crate) fn secret(&self, name: &str) -> Result<SecretString> {
        let path = self.path(name);
        if !path.exists() {
            create(&path).with_context(|| format!("make {}", path.display()))?;
        }
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        Ok(SecretString::from(text.trim().to_owned()))
    }
}

/// The sealing key of this installation, as far as this machine knows it: configured, or made here
/// by `up`. `None`: personal values cannot be shown.
///
/// # Errors
/// Where the key is there and cannot be read.
pub(crate) fn sealing_key(config: &Config) -> Result<Option<SealingKey>> {
    if let Some(key) = config.sealing_key()? {
        return Ok(Some(key));
    }
    let dir = dir_beside(&database::settings(config).data_dir);
    let path = dir.join(SEALING_KEY);
    if config.database_url()?.is_some() || !path.exists() {
        return Ok(None);
    }
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    Ok(Some(SealingKey::new(digest(text.trim()).context("read the sealing key")?)))
}

/// Where secrets lie beside a managed cluster.
fn dir_beside(data_dir: &Path) -> PathBuf {
    data_dir.parent().unwrap_or(data_dir).join("secrets")
}

/// 64 hexadecimal digits, 256 random bits.
pub(crate) fn random_secret() -> String {
    let mut rng = rand::rng();
    format!("{:032x}{:032x}", rng.random::<u128>(), rng.random::<u128>())
}

/// Writes a new secret beside and links it into place: of two processes, one wins and both read
/// the same.
fn create(path: &Path) -> std::io::Result<()> {
    let draft = path.with_extension(format!("{}.tmp", std::process::id()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    writeln!(file, "{}", random_secret())?;
    file.sync_all()?;
    let linked = fs::hard_link(&draft, path);
    fs::remove_file(&draft)?;
    match linked {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_secret_is_made_once_and_only_its_owner_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::beside(&dir.path().join("pg")).unwrap();
        let first = home.secret("api-token").unwrap();
        assert_eq!(first.expose_secret().len(), 64);
        assert_eq!(home.secret("api-token").unwrap().expose_secret(), first.expose_secret());
        let mode = fs::metadata(home.path("api-token")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
