//! Real servers: first and later starts, attaching, and every way to die.

use std::{
    env,
    io::Write,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    process::{Child, Command, Stdio},
};

use rustix::process::{Signal, geteuid, kill_process};

use super::*;

/// Generous: only a fault makes a test wait that long.
const DEADLINE: Duration = Duration::from_secs(30);
/// Tells the test binary, started by itself, which directory to own.
const OWN_DIRECTORY: &str = "TALLYLIGHT_TEST_OWN_DIRECTORY";

/// A directory that the server's user can reach, and the cluster's directory in it.
fn directory() -> (tempfile::TempDir, PathBuf) {
    let top = tempfile::tempdir().unwrap();
    fs::set_permissions(top.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let root = top.path().join("pg");
    (top, root)
}

fn start(root: &Path) -> Cluster {
    Cluster::start_with(root, &Places::of_system(None)).unwrap()
}

fn binaries() -> Binaries {
    find(&Places::of_system(None), Account::for_new_data().unwrap(), None).unwrap()
}

/// Runs SQL with psql and returns its output, trimmed.
fn sql(cluster: &Cluster, text: &str) -> String {
    let output = Command::new(binaries().bin.join("psql"))
        .args(["-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", text])
        .arg(cluster.url("postgres"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < DEADLINE, "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Everything in the server's log.
fn log_files(root: &Path) -> String {
    let entries = fs::read_dir(root.join("log")).unwrap().flatten();
    entries.map(|entry| fs::read_to_string(entry.path()).unwrap()).collect()
}

/// A server of the stopped cluster in `root` that nobody supervises.
fn unsupervised_server(root: &Path) -> Child {
    let layout = Layout::create(root).unwrap();
    let account = Account::for_data(&layout.data()).unwrap();
    let mut command = account.command(&binaries().bin.join("postgres"));
    let socket_dir = layout.create_server_dirs(account).unwrap();
    let port = layout.connection().unwrap().port;
    add_arguments(&mut command, &layout, Kind::Durable, port, &socket_dir);
    let server = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until("the server takes connections", || handshake::ask(port, USER) == Answer::Ready);
    server
}

#[test]
fn second_start_keeps_data_password_and_port() {
    let (_top, root) = directory();
    let first = start(&root);
    assert!(first.is_owner());
    sql(&first, "create table kept as select 42 as n");
    let url = first.url("postgres");
    let written = fs::metadata(root.join("data/postmaster.pid")).unwrap();
    assert_ne!(written.uid(), 0, "the server runs as root");
    first.stop().unwrap();
    assert!(!root.join("data/postmaster.pid").exists(), "the stop was not clean");

    let second = start(&root);
    assert_eq!(second.url("postgres"), url);
    assert_eq!(sql(&second, "select n from kept"), "42");
}

#[test]
fn cluster_is_durable_private_and_local() {
    let (_top, root) = directory();
    let cluster = start(&root);
    for (name, value) in [
        ("fsync", "on"),
        ("full_page_writes", "on"),
        ("data_checksums", "on"),
        ("wal_level", "replica"),
        ("max_connections", "100"),
        ("shared_buffers", "128MB"),
        ("server_encoding", "UTF8"),
        ("lc_collate", "C"),
        ("listen_addresses", "127.0.0.1"),
        ("password_encryption", "scram-sha-256"),
    ] {
        assert_eq!(sql(&cluster, &format!("select current_setting('{name}')")), value, "{name}");
    }
    let methods = "select distinct auth_method from pg_hba_file_rules";
    assert_eq!(sql(&cluster, methods), "scram-sha-256");
    for private in ["data", "run", "log"] {
        assert_eq!(fs::metadata(root.join(private)).unwrap().mode() & 0o077, 0, "{private}");
    }
    for secret in ["password", "conn.json"] {
        assert_eq!(fs::metadata(root.join(secret)).unwrap().mode() & 0o777, 0o600, "{secret}");
    }
    assert!(!root.join("password.tmp").exists());
    assert!(fs::read_dir(root.join("log")).unwrap().next().is_some(), "no log file");
    let password = fs::read_to_string(root.join("password")).unwrap();
    assert!(!format!("{cluster:?}").contains(&password));
}

#[test]
fn attached_handle_does_not_stop_the_server() {
    let (_top, root) = directory();
    let owner = start(&root);
    let attached = start(&root);
    assert!(!attached.is_owner());
    assert_eq!(attached.url("postgres"), owner.url("postgres"));
    attached.stop().unwrap();
    assert_eq!(sql(&owner, "select 1"), "1");
}

#[test]
fn two_starts_at_once_make_one_owner() {
    let (_top, root) = directory();
    let clusters: Vec<Cluster> = thread::scope(|scope| {
        let starts: Vec<_> = (0..2).map(|_| scope.spawn(|| start(&root))).collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect()
    });
    assert_eq!(clusters.iter().filter(|cluster| cluster.is_owner()).count(), 1);
    assert_eq!(sql(&clusters[0], "select 1"), sql(&clusters[1], "select 1"));
}

/// Not a test of its own: the process that `killed_owner_stops_the_server_cleanly` kills.
#[test]
fn helper_owns_a_cluster_until_killed() {
    let Some(root) = env::var_os(OWN_DIRECTORY) else {
        return;
    };
    let cluster = start(Path::new(&root));
    println!("pid={}", cluster.server_pid().unwrap());
    std::io::stdout().flush().unwrap();
    // The parent kills this process; the end of its input says that the parent is gone.
    let _ = std::io::stdin().read_line(&mut String::new());
}

#[test]
fn killed_owner_stops_the_server_cleanly() {
    let (_top, root) = directory();
    let mut owner = Command::new(env::current_exe().unwrap())
        .args(["--exact", "cluster::tests::helper_owns_a_cluster_until_killed", "--nocapture"])
        .env(OWN_DIRECTORY, &root)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("the owner is up", || {
        let port = Layout::create(&root).unwrap().connection();
        port.is_some_and(|saved| handshake::ask(saved.port, USER) == Answer::Ready)
    });
    let attached = start(&root);
    assert!(!attached.is_owner(), "the other process owns the cluster");
    sql(&attached, "create table kept as select 42 as n");

    owner.kill().unwrap();
    owner.wait().unwrap();
    // At once, while the server may still be stopping.
    let killed = Instant::now();
    let next = start(&root);
    assert!(killed.elapsed() < Duration::from_secs(10), "took {:?}", killed.elapsed());
    assert!(next.is_owner());
    assert_eq!(sql(&next, "select n from kept"), "42");
    let log = log_files(&root);
    assert!(log.contains("database system was shut down at"), "{log}");
    assert!(!log.contains("not properly shut down"), "{log}");
}

#[test]
fn killed_server_recovers_at_the_next_start() {
    let (_top, root) = directory();
    let cluster = start(&root);
    sql(&cluster, "create table kept as select 42 as n");
    kill_process(cluster.server_pid().unwrap(), Signal::KILL).unwrap();
    drop(cluster);
    assert!(root.join("data/postmaster.pid").exists(), "the pid file is PostgreSQL's to remove");
    let next = start(&root);
    assert_eq!(sql(&next, "select n from kept"), "42");
    assert!(log_files(&root).contains("not properly shut down"), "{}", log_files(&root));
}

#[test]
fn live_orphan_is_adopted_and_stopped_by_its_new_owner() {
    let (_top, root) = directory();
    start(&root).stop().unwrap();
    let mut orphan = unsupervised_server(&root);
    let cluster = start(&root);
    assert!(cluster.is_owner());
    assert_eq!(cluster.server_pid(), Some(Pid::from_child(&orphan)));
    assert_eq!(sql(&cluster, "select 1"), "1");
    // Our child, so it stays a zombie until reaped; an orphan's parent would do that.
    let reaper = thread::spawn(move || orphan.wait().unwrap());
    cluster.stop().unwrap();
    assert!(reaper.join().unwrap().success());
}

#[cfg(target_os = "linux")]
#[test]
fn zombie_server_does_not_block_the_next_start() {
    let (_top, root) = directory();
    let first = start(&root);
    sql(&first, "create table kept as select 42 as n");
    first.stop().unwrap();
    let mut zombie = unsupervised_server(&root);
    zombie.kill().unwrap();
    let stat = format!("/proc/{}/stat", zombie.id());
    wait_until("it is a zombie", || fs::read_to_string(&stat).unwrap().contains(") Z "));
    let cluster = start(&root);
    assert_eq!(sql(&cluster, "select n from kept"), "42");
    zombie.wait().unwrap();
}

#[test]
fn taken_port_is_replaced_and_the_new_one_saved() {
    let (_top, root) = directory();
    let first = start(&root);
    let taken = first.port;
    first.stop().unwrap();
    let other_program = TcpListener::bind((Ipv4Addr::LOCALHOST, taken)).unwrap();
    let second = start(&root);
    assert_ne!(second.port, taken);
    assert_eq!(second.layout.connection().unwrap().port, second.port);
    drop(other_program);
    assert_eq!(sql(&second, "select 1"), "1");
}

/// A directory that a file makes look like a cluster, owned by a user that is not root.
fn foreign_data(root: &Path, name: &str, content: &str) -> PathBuf {
    let data = Layout::create(root).unwrap().data();
    fs::create_dir(&data).unwrap();
    fs::write(data.join(name), content).unwrap();
    if geteuid().is_root() {
        chown(&data, Some(65_534), Some(65_534)).unwrap();
    }
    data
}

fn content(directory: &Path) -> Vec<(PathBuf, String)> {
    let entries = fs::read_dir(directory).unwrap().flatten().map(|entry| entry.path());
    entries.map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

#[test]
fn cluster_of_another_version_is_refused_and_untouched() {
    let (_top, root) = directory();
    let data = foreign_data(&root, "PG_VERSION", "12\n");
    let before = content(&data);
    let error = Cluster::start_with(&root, &Places::of_system(None)).unwrap_err();
    assert!(matches!(error, Error::VersionMismatch { data_major: 12, .. }), "{error}");
    let explicit = Places::of_system(Some(binaries().bin));
    let error = Cluster::start_with(&root, &explicit).unwrap_err();
    assert!(matches!(error, Error::VersionMismatch { data_major: 12, .. }), "{error}");
    assert_eq!(content(&data), before);
}

#[test]
fn directory_that_is_no_cluster_is_refused_and_untouched() {
    let (_top, root) = directory();
    let data = foreign_data(&root, "letters.txt", "dear");
    let before = content(&data);
    let error = Cluster::start_with(&root, &Places::of_system(None)).unwrap_err();
    assert!(matches!(error, Error::NotACluster { .. }), "{error}");
    assert_eq!(content(&data), before);
}

#[test]
fn no_binaries_is_an_error_that_names_both_commands() {
    let (top, root) = directory();
    let nowhere = Places {
        explicit: None,
        path: None,
        root: top.path().to_owned(),
        installed: top.path().to_owned(),
    };
    let message = Cluster::start_with(&root, &nowhere).unwrap_err().to_string();
    assert!(message.contains("`tallylight db install`"), "{message}");
    assert!(message.contains(&crate::SystemPackages::hint()), "{message}");
    assert!(!root.join("data").exists());
}

#[test]
fn server_that_cannot_start_shows_its_log() {
    let (_top, root) = directory();
    start(&root).stop().unwrap();
    let config = root.join("data/postgresql.conf");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text + "\nno_such_setting = 1\n").unwrap();
    let error = Cluster::start_with(&root, &Places::of_system(None)).unwrap_err();
    assert!(error.to_string().contains("no_such_setting"), "{error}");
}

#[test]
fn long_path_gets_a_short_socket_directory() {
    let (_top, root) = directory();
    let cluster = start(&root.join("d".repeat(90)));
    let socket_dir = sql(&cluster, "show unix_socket_directories");
    assert!(socket_dir.len() < 90, "{socket_dir}");
    let socket_dir = PathBuf::from(socket_dir.trim_matches('"'));
    assert_eq!(fs::metadata(&socket_dir).unwrap().mode() & 0o777, 0o700);
    cluster.stop().unwrap();
    assert!(!socket_dir.exists());
}

#[test]
fn database_names_are_escaped_in_the_url() {
    assert_eq!(percent_encoded("a b/ü?"), "a%20b%2F%C3%BC%3F");
}
