//! The files of one cluster directory, and how they are written.
//!
//! | name | what |
//! |---|---|
//! | `lock` | held by the owner |
//! | `data/` | PostgreSQL's own directory |
//! | `password` | of the superuser [`USER`], mode 0600 |
//! | `conn.json` | port of the server for those who attach, and for the next start; mode 0600 |
//! | `run/` | the Unix socket, unless the path is too long for one |
//! | `log/`, `startup.log` | the server's log, a file a weekday; what it said before that log opened |
//! | `throwaway` | the marker: this directory may be deleted |
//!
//! When root runs us, the directory belongs to root and only `data`, `run` and `log` to the server's
//! user: it can enter, but cannot plant a link for root to write through.

use std::{
    fmt,
    fs::{self, DirBuilder, File, OpenOptions},
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown},
    path::{Path, PathBuf},
    process,
};

use rustix::{fs::OFlags, process::geteuid};
use serde::{Deserialize, Serialize};

use crate::{Error, account::Account};

/// The superuser of every managed cluster.
pub(crate) const USER: &str = "tallylight";
/// What the marker of a throwaway directory holds.
const MARKER_TEXT: &str = "made by tallylight for tests; may be deleted\n";
/// Longest socket directory: 104 bytes (the shortest `sun_path`, macOS) less `/.s.PGSQL.65535` and NUL.
const SOCKET_DIR_LIMIT: usize = 104 - 16;

/// For opening files where another user might have put a link; a flag of `open(2)`.
pub(crate) const NO_FOLLOW: i32 = OFlags::NOFOLLOW.bits().cast_signed();

/// What an attaching process and the next start need to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Connection {
    /// Always the loopback address; written for other programs that read the file.
    pub(crate) host: String,
    /// TCP port, chosen once and kept as long as it is free.
    pub(crate) port: u16,
    /// Always [`USER`]; written for other programs that read the file.
    pub(crate) user: String,
}

/// The superuser's password. Neither `Debug` nor any message shows it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Password(pub(crate) String);

impl Password {
    /// 256 random bits in hex, which needs no escaping in a URL.
    fn generate() -> Password {
        let bytes: [u8; 32] = rand::random();
        Password(hex(&bytes))
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The paths of one cluster directory.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// The directory itself, absolute and without links.
    root: PathBuf,
}

impl Layout {
    /// Makes the directory if needed. As root it lets other users enter, but not read.
    pub(crate) fn create(root: &Path) -> Result<Layout, Error> {
        let mode = if geteuid().is_root() { 0o711 } else { 0o700 };
        if let Some(parent) = root.parent() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(parent)
                .map_err(Error::io("create", parent))?;
        }
        match DirBuilder::new().mode(mode).create(root) {
            // Again without the umask, which may have taken the right to enter.
            Ok(()) => set_mode(root, mode)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Error::io("create", root)(error)),
        }
        Layout::existing(root)
    }

    /// The directory as it is; fails if there is none.
    pub(crate) fn existing(root: &Path) -> Result<Layout, Error> {
        let root = root.canonicalize().map_err(Error::io("find", root))?;
        Ok(Layout { root })
    }

    /// The directory that holds everything below.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// PostgreSQL's data directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    /// The lock file.
    pub(crate) fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// The directory of the server's log files.
    pub(crate) fn log(&self) -> PathBuf {
        self.root.join("log")
    }

    /// What the server says before its log opens.
    pub(crate) fn startup_log(&self) -> PathBuf {
        self.root.join("startup.log")
    }

    /// The password file.
    pub(crate) fn password_file(&self) -> PathBuf {
        self.root.join("password")
    }

    /// The saved port.
    fn connection_file(&self) -> PathBuf {
        self.root.join("conn.json")
    }

    /// The marker of a directory that may be deleted.
    fn marker(&self) -> PathBuf {
        self.root.join("throwaway")
    }

    /// Reads the saved port; `None` before the first start, or if the file is damaged.
    pub(crate) fn connection(&self) -> Option<Connection> {
        serde_json::from_slice(&fs::read(self.connection_file()).ok()?).ok()
    }

    /// Saves the port.
    pub(crate) fn save_connection(&self, port: u16) -> Result<(), Error> {
        let connection = Connection { host: "127.0.0.1".to_owned(), port, user: USER.to_owned() };
        let path = self.connection_file();
        let text = serde_json::to_vec_pretty(&connection)
            .map_err(|error| Error::io("write", &path)(error.into()))?;
        self.write_private(&path, &text)
    }

    /// Reads the password of an existing cluster.
    pub(crate) fn password(&self) -> Result<Password, Error> {
        let path = self.password_file();
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Password(text.trim_end().to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(Error::PasswordMissing { path })
            }
            Err(error) => Err(Error::io("read", path)(error)),
        }
    }

    /// Makes the password of a new cluster, or takes the one that an interrupted start left.
    pub(crate) fn new_password(&self) -> Result<Password, Error> {
        match self.password() {
            Err(Error::PasswordMissing { path }) => {
                let password = Password::generate();
                self.write_private(&path, password.0.as_bytes())?;
                Ok(password)
            }
            known => known,
        }
    }

    /// Writes a file of mode 0600 that is either whole or absent, for the owner of the directory.
    fn write_private(&self, path: &Path, content: &[u8]) -> Result<(), Error> {
        let root = fs::metadata(&self.root).map_err(Error::io("look at", &self.root))?;
        let owner = geteuid().is_root().then(|| (root.uid(), root.gid()));
        write_atomically(path, content, owner)
    }

    /// Writes the marker: from now on [`Layout::delete_marked`] deletes this directory.
    pub(crate) fn mark_throwaway(&self) -> Result<(), Error> {
        self.write_private(&self.marker(), MARKER_TEXT.as_bytes())
    }

    /// Whether our marker is there.
    pub(crate) fn is_throwaway(&self) -> bool {
        fs::read_to_string(self.marker()).is_ok_and(|text| text == MARKER_TEXT)
    }

    /// Deletes the directory if and only if it carries our marker. Only the lock's holder may call it.
    ///
    /// The marker goes nearly last: what an interrupted deletion leaves can be deleted later.
    pub(crate) fn delete_marked(&self) -> Result<(), Error> {
        if !self.is_throwaway() {
            return Ok(());
        }
        let last = [self.marker(), self.lock()];
        let delete = || {
            for entry in fs::read_dir(&self.root)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    fs::remove_dir_all(entry.path())?;
                } else if !last.contains(&entry.path()) {
                    fs::remove_file(entry.path())?;
                }
            }
            fs::remove_file(self.marker())?;
            // The rest is empty but for the lock.
            fs::remove_dir_all(&self.root)
        };
        delete().map_err(Error::io("delete", &self.root))
    }

    /// Makes the directories that the server writes to, and returns the one for its socket.
    pub(crate) fn create_server_dirs(&self, account: Account) -> Result<PathBuf, Error> {
        create_private_dir(&self.log(), account)?;
        let socket_dir = self.socket_dir(&socket_bases())?;
        create_private_dir(&socket_dir, account)?;
        Ok(socket_dir)
    }

    /// Removes an empty socket directory that lies outside the cluster's own directory.
    pub(crate) fn remove_outside_socket_dir(&self) {
        for base in socket_bases() {
            // Fails where there is none, and where a socket shows that a server uses it.
            let _ = fs::remove_dir(base.join(self.hashed_name()));
        }
    }

    /// A short name for this cluster, used outside its directory.
    fn hashed_name(&self) -> String {
        let mut hasher = DefaultHasher::new();
        self.root.hash(&mut hasher);
        format!("tallylight-{:016x}", hasher.finish())
    }

    /// The first directory short enough for a Unix socket: our own, else a hashed one in `bases`.
    fn socket_dir(&self, bases: &[PathBuf]) -> Result<PathBuf, Error> {
        let mut choices = vec![self.root.join("run")];
        choices.extend(bases.iter().map(|base| base.join(self.hashed_name())));
        let fits = |dir: &&PathBuf| dir.as_os_str().len() <= SOCKET_DIR_LIMIT;
        choices.iter().find(fits).cloned().ok_or_else(|| Error::SocketPathTooLong {
            path: choices.last().cloned().unwrap_or_default(),
            limit: SOCKET_DIR_LIMIT,
        })
    }
}

/// Where socket directories may go when the cluster's own path is too long.
fn socket_bases() -> Vec<PathBuf> {
    let runtime = if geteuid().is_root() {
        Some(PathBuf::from("/run"))
    } else {
        std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from)
    };
    let usable = runtime.filter(|dir| dir.is_absolute() && dir.is_dir());
    usable.into_iter().chain([std::env::temp_dir()]).collect()
}

/// Makes a directory that only `account` may enter; an existing one must be ours or the account's.
pub(crate) fn create_private_dir(path: &Path, account: Account) -> Result<(), Error> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => account.give(path),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let found = fs::symlink_metadata(path).map_err(Error::io("look at", path))?;
            let uid = match account {
                Account::Current => geteuid().as_raw(),
                Account::Dropped { uid, .. } => uid,
            };
            if !found.is_dir() || ![uid, geteuid().as_raw()].contains(&found.uid()) {
                return Err(Error::ForeignDirectory { path: path.to_owned() });
            }
            account.give(path)
        }
        Err(error) => Err(Error::io("create", path)(error)),
    }
}

/// Writes a file of mode 0600 beside `path`, syncs it, gives it to `owner` and renames it into place.
pub(crate) fn write_atomically(
    path: &Path,
    content: &[u8],
    owner: Option<(u32, u32)>,
) -> Result<(), Error> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".tmp-{}-{:08x}", process::id(), rand::random::<u32>()));
    let temporary = path.with_file_name(name);
    let write = || {
        // `create_new` follows no link that somebody may have put there.
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(content)?;
        if let Some((uid, gid)) = owner {
            fchown(&file, Some(uid), Some(gid))?;
        }
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(Error::io("write", path))?;
    sync_parent(path)
}

/// Makes a rename or a new file in the parent directory of `path` survive a power failure.
pub(crate) fn sync_parent(path: &Path) -> Result<(), Error> {
    let parent = path.parent().unwrap_or(path);
    File::open(parent).and_then(|dir| dir.sync_all()).map_err(Error::io("sync", parent))
}

/// Sets the permission bits of a path of ours.
pub(crate) fn set_mode(path: &Path, mode: u32) -> Result<(), Error> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(Error::io("set the permissions of", path))
}

/// Bytes as lower-case hex digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xF]);
    digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}

/// The last `limit` bytes of a file as text; empty if it cannot be read.
pub(crate) fn tail(path: &Path, limit: u64) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        io::Seek::seek(&mut file, io::SeekFrom::Start(length.saturating_sub(limit)))?;
        let mut bytes = Vec::new();
        file.take(limit).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    };
    read().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(dir: &tempfile::TempDir) -> Layout {
        Layout::create(&dir.path().join("pg")).unwrap()
    }

    #[test]
    fn unmarked_directory_is_never_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let layout = layout(&dir);
        layout.delete_marked().unwrap();
        fs::write(layout.marker(), "somebody else's file").unwrap();
        layout.delete_marked().unwrap();
        assert!(layout.root().is_dir());
        layout.mark_throwaway().unwrap();
        layout.delete_marked().unwrap();
        assert!(!layout.root().exists());
    }

    #[test]
    fn long_paths_get_a_short_socket_directory() {
        let dir = tempfile::tempdir().unwrap();
        let short = layout(&dir);
        assert_eq!(short.socket_dir(&[]).unwrap(), short.root().join("run"));
        let long = Layout::create(&dir.path().join("d".repeat(90))).unwrap();
        let chosen = long.socket_dir(&[PathBuf::from("/run")]).unwrap();
        assert!(chosen.starts_with("/run") && chosen.as_os_str().len() < 40, "{chosen:?}");
    }

    #[test]
    fn no_short_socket_directory_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let long = Layout::create(&dir.path().join("d".repeat(90))).unwrap();
        let error = long.socket_dir(&[dir.path().join("e".repeat(90))]).unwrap_err();
        assert!(matches!(error, Error::SocketPathTooLong { limit: 88, .. }), "{error}");
    }

    #[test]
    fn saved_files_are_private_and_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let layout = layout(&dir);
        let password = layout.new_password().unwrap();
        layout.save_connection(20_001).unwrap();
        assert_eq!(layout.password().unwrap(), password);
        assert_eq!(layout.new_password().unwrap(), password);
        assert_eq!(layout.connection().unwrap().port, 20_001);
        for path in [layout.password_file(), layout.connection_file()] {
            assert_eq!(fs::metadata(path).unwrap().mode() & 0o777, 0o600);
        }
        let saved = fs::read_to_string(layout.connection_file()).unwrap();
        assert!(!saved.contains(&password.0));
    }

    #[test]
    fn hex_has_two_digits_a_byte() {
        assert_eq!(hex(&[0x00, 0x0F, 0xA0, 0xFF]), "000fa0ff");
    }

    #[test]
    fn password_is_not_shown() {
        let password = Password("secret".to_owned());
        assert_eq!(format!("{password:?}"), "***");
    }
}
