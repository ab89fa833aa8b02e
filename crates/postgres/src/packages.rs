//! The system's package manager and its exact command to install PostgreSQL.
//!
//! The commands are shown before they are run, and run only when the user asked for it.

use std::{
    env,
    ffi::OsStr,
    fmt,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::geteuid;

use crate::Error;

/// What to say where no known package manager exists.
const DOWNLOAD_PAGE: &str = "see https://www.postgresql.org/download/";
/// Debian's settings for new clusters.
const DEBIAN_CLUSTERS: &str = "/etc/postgresql-common/createcluster.conf";
/// Writes Debian's settings for new clusters so that the package starts none of its own.
const NO_MAIN_CLUSTER: &str = "mkdir -p /etc/postgresql-common && \
    echo 'create_main_cluster = false' > /etc/postgresql-common/createcluster.conf";
/// Keeps the file above without a question; the package would ask, for it did not write it.
const KEEP_SETTINGS: [&str; 3] = ["env", "DEBIAN_FRONTEND=noninteractive", "UCF_FORCE_CONFFOLD=1"];

/// Program and arguments per package manager, the system's own ones first.
const MANAGERS: [&[&str]; 7] = [
    &["apt-get", "install", "-y", "postgresql"],
    &["dnf", "install", "-y", "postgresql-server"],
    &["yum", "install", "-y", "postgresql-server"],
    &["zypper", "--non-interactive", "install", "postgresql-server"],
    &["pacman", "-S", "--noconfirm", "postgresql"],
    &["apk", "add", "postgresql"],
    &["brew", "install", "postgresql@17"],
];

/// How this system's package manager installs PostgreSQL. `Display` is the commands, one a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemPackages {
    /// The commands in order, each a program with its arguments.
    steps: Vec<Vec<String>>,
}

impl SystemPackages {
    /// Finds the package manager on `PATH`; `None` if there is none that we know.
    pub fn detect() -> Option<SystemPackages> {
        let path = env::var_os("PATH")?;
        let manager = manager_on(&path)?;
        let keeps_clusters = Path::new(DEBIAN_CLUSTERS).exists();
        Some(SystemPackages::plan(manager, geteuid().is_root(), keeps_clusters))
    }

    /// The commands for `manager`, one of [`MANAGERS`].
    ///
    /// Debian's package makes and starts a cluster of its own on port 5432. A settings file prevents
    /// that; an existing one is the administrator's and stays as it is.
    fn plan(manager: &[&str], root: bool, has_cluster_settings: bool) -> SystemPackages {
        let mut steps: Vec<Vec<&str>> = Vec::new();
        if manager.first() == Some(&"apt-get") && !has_cluster_settings {
            steps.push(vec!["sh", "-c", NO_MAIN_CLUSTER]);
            steps.push([&KEEP_SETTINGS, manager].concat());
        } else {
            steps.push(manager.to_vec());
        }
        // Homebrew refuses to run as root.
        let sudo = !root && manager.first() != Some(&"brew");
        let prefix = sudo.then_some("sudo");
        let owned = |step: Vec<&str>| prefix.into_iter().chain(step).map(str::to_owned).collect();
        SystemPackages { steps: steps.into_iter().map(owned).collect() }
    }

    /// The command that installs the package, on one line, or where to find one.
    pub(crate) fn hint() -> String {
        SystemPackages::detect()
            .and_then(|packages| packages.steps.last().map(|step| line(step)))
            .unwrap_or_else(|| DOWNLOAD_PAGE.to_owned())
    }

    /// Runs the commands in order with the caller's terminal, and stops at the first that fails.
    ///
    /// # Errors
    /// A command cannot be started or fails.
    pub fn run(&self) -> Result<(), Error> {
        for step in &self.steps {
            let [program, arguments @ ..] = step.as_slice() else {
                continue;
            };
            let status = Command::new(program)
                .args(arguments)
                .status()
                .map_err(Error::io("run", program))?;
            if !status.success() {
                return Err(Error::Packages { command: line(step), status });
            }
        }
        Ok(())
    }
}

impl fmt::Display for SystemPackages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.steps.iter().map(|step| line(step)).collect();
        f.write_str(&lines.join("\n"))
    }
}

/// The first known package manager in the directories of `path`.
fn manager_on(path: &OsStr) -> Option<&'static [&'static str]> {
    let directories: Vec<PathBuf> = env::split_paths(path).collect();
    let on_path = |program: &str| directories.iter().any(|dir| dir.join(program).is_file());
    MANAGERS.into_iter().find(|manager| manager.first().is_some_and(|program| on_path(program)))
}

/// A command as one would type it into a shell.
fn line(step: &[String]) -> String {
    let quoted = |word: &String| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./@:".contains(c);
        if word.chars().all(plain) {
            word.clone()
        } else {
            format!("'{}'", word.replace('\'', r"'\''"))
        }
    };
    step.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn debian_is_kept_from_starting_a_cluster_of_its_own() {
        let packages = SystemPackages::plan(MANAGERS[0], true, false);
        let shown = packages.to_string();
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines[0].contains("create_main_cluster = false"), "{shown}");
        assert_eq!(
            lines[1],
            "env DEBIAN_FRONTEND=noninteractive UCF_FORCE_CONFFOLD=1 apt-get install -y postgresql"
        );
    }

    #[test]
    fn existing_debian_settings_stay_as_they_are() {
        let packages = SystemPackages::plan(MANAGERS[0], true, true);
        assert_eq!(packages.to_string(), "apt-get install -y postgresql");
    }

    #[test]
    fn users_get_sudo_except_for_homebrew() {
        let dnf = SystemPackages::plan(MANAGERS[1], false, false);
        assert_eq!(dnf.to_string(), "sudo dnf install -y postgresql-server");
        let brew = SystemPackages::plan(MANAGERS[6], false, false);
        assert_eq!(brew.to_string(), "brew install postgresql@17");
    }

    #[test]
    fn manager_is_looked_for_on_the_path() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(manager_on(dir.path().as_os_str()), None);
        fs::write(dir.path().join("apk"), "").unwrap();
        assert_eq!(manager_on(dir.path().as_os_str()), Some(MANAGERS[5]));
    }

    #[test]
    fn shown_commands_can_be_pasted_into_a_shell() {
        let step = ["sh".to_owned(), "-c".to_owned(), "echo 'a b'".to_owned()];
        assert_eq!(line(&step), r"sh -c 'echo '\''a b'\'''");
    }

    #[test]
    fn failing_command_is_named() {
        let packages = SystemPackages { steps: vec![vec!["false".into()]] };
        assert!(packages.run().unwrap_err().to_string().starts_with("`false` failed"));
    }
}
