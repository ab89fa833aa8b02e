//! Where the managed cluster lives and which PostgreSQL runs it.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use rustix::process::geteuid;

/// Root's clusters live here: root's own home is closed to the user that the server runs as.
const ROOT_HOME: &str = "/var/lib/tallylight";

/// What a caller may choose about the managed cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The directory that holds the cluster, its password, its log and its lock.
    pub data_dir: PathBuf,
    /// The directory with `postgres` and `initdb`; found by itself if `None`.
    pub pg_bin: Option<PathBuf>,
}

impl Settings {
    /// The cluster of the current user: `/var/lib/tallylight/pg` for root, otherwise
    /// `$XDG_DATA_HOME/tallylight/pg` or `~/.local/share/tallylight/pg`.
    pub fn for_current_user() -> Settings {
        Settings { data_dir: home().join("pg"), pg_bin: None }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Settings::for_current_user()
    }
}

/// Where `tallylight db install` puts PostgreSQL for the current user, one directory a version.
pub fn install_dir() -> PathBuf {
    home().join("postgresql")
}

/// The directory that holds everything of ours for the current user.
fn home() -> PathBuf {
    if geteuid().is_root() {
        return PathBuf::from(ROOT_HOME);
    }
    let data_home = absolute("XDG_DATA_HOME")
        .or_else(|| absolute("HOME").or_else(home_in_passwd).map(|home| home.join(".local/share")));
    // A user without any home gets root's place, and a clear refusal if it may not write there.
    data_home.map_or_else(|| PathBuf::from(ROOT_HOME), |home| home.join("tallylight"))
}

/// An environment variable that holds an absolute path; the XDG rules ignore relative ones.
fn absolute(name: &str) -> Option<PathBuf> {
    env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute())
}

/// The home that `/etc/passwd` gives the current user.
fn home_in_passwd() -> Option<PathBuf> {
    let passwd = fs::read_to_string("/etc/passwd").ok()?;
    let uid = geteuid().as_raw().to_string();
    let line = passwd.lines().find(|line| line.split(':').nth(2) == Some(uid.as_str()))?;
    line.split(':').nth(5).map(Path::new).filter(|home| home.is_absolute()).map(Path::to_owned)
}
