//! Against a real server: Debian's package `postgresql`, or whatever has `initdb` and `postgres`.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use ediffi::Request;

use super::*;
use crate::job::{JobImage, JobProgress};

const SOON: Duration = Duration::from_millis(300);
const LEASE: Duration = Duration::from_secs(2);

/// A database server of its own, in a folder that is removed with it.
struct Cluster {
    folder: tempfile::TempDir,
    port: u16,
    server: Child,
}

/// The folder of the newest server's programs.
fn programs() -> Option<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .collect();
    found.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    found.retain(|folder| folder.join("initdb").is_file() && folder.join("postgres").is_file());
    found.sort();
    found.pop()
}

/// A program of the server's user. The server does not run as root.
fn command(program: &Path) -> Command {
    let root = std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    if !root {
        return Command::new(program);
    }
    let mut command = Command::new("runuser");
    command.args(["-u", "postgres", "--"]).arg(program);
    command
}

impl Cluster {
    /// None where there is no server and nobody said that there has to be one.
    fn start() -> Option<Self> {
        let Some(programs) = programs() else {
            assert!(std::env::var_os("CI").is_none(), "install PostgreSQL's server (Debian: postgresql)");
            writeln!(std::io::stdout(), "skipped: replicas_share_one_queue: there is no PostgreSQL").unwrap();
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let owner = Command::new("chown").arg("postgres").arg(path).stderr(Stdio::null()).status();
        assert!(owner.is_ok());
        let data = path.join("data");
        let made = command(&programs.join("initdb"))
            .arg("-D")
            .arg(&data)
            .args(["-U", "ediffi", "-A", "trust", "-E", "UTF8", "--no-sync"])
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(made.success());
        let (key, certificate) = (path.join("key.pem"), path.join("certificate.pem"));
        let made = command(Path::new("openssl"))
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"])
            .args([
                "-addext",
                "subjectAltName=DNS:localhost",
                "-addext",
                "basicConstraints=critical,CA:FALSE",
                "-keyout",
            ])
            .arg(&key)
            .arg("-out")
            .arg(&certificate)
            .stderr(Stdio::null())
            .status();
        assert!(made.unwrap().success(), "openssl makes no certificate");
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = command(&programs.join("postgres"));
        let setting = |name: &str, file: &Path| format!("{name}={}", file.display());
        server.args(["-c", "ssl=on", "-c", &setting("ssl_key_file", &key)]);
        server.args(["-c", &setting("ssl_cert_file", &certificate), "-p", &port.to_string()]);
        server.arg("-D").arg(&data).arg("-k").arg(path).args(["-c", "listen_addresses=localhost", "-c", "fsync=off"]);
        let server = server.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let cluster = Self { folder, port, server };
        let ends = Instant::now() + Duration::from_secs(60);
        while PostgresStore::connect(&cluster.parameters(), Keep::default(), LEASE).is_err() {
            assert!(Instant::now() < ends, "the server does not start");
            thread::sleep(Duration::from_millis(100));
        }
        Some(cluster)
    }

    fn parameters(&self) -> String {
        format!("host={} port={} user=ediffi dbname=postgres", self.folder.path().display(), self.port)
    }

    /// A replica.
    fn replica(&self, keep: Keep) -> PostgresStore {
        PostgresStore::connect(&self.parameters(), keep, LEASE).unwrap()
    }

    fn clear(&self) {
        let store = self.replica(Keep::default());
        store.connection.with(|client| client.batch_execute("DELETE FROM ediffi_jobs")).unwrap();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let id = std::fs::read_to_string(self.folder.path().join("data/postmaster.pid")).unwrap_or_default();
        let _ = Command::new("kill").args(["-QUIT", id.lines().next().unwrap_or("")]).status();
        let _ = self.server.wait();
    }
}

fn new(client: &str, prompt: &str) -> NewJob {
    NewJob {
        client: client.to_owned(),
        model: "m".to_owned(),
        request: Arc::new(Request::new(prompt).seed(u64::MAX)),
        previews: 3,
        attended: false,
    }
}

fn image(index: usize, bytes: usize) -> Update {
    let (seed, width, height, url) = (7, 1, 1, String::new());
    Update::Image(JobImage { index, seed, width, height, bytes, url }, vec![index as u8; bytes].into())
}

/// One server for all of them: it takes a second to start.
#[test]
fn replicas_share_one_queue() {
    let Some(cluster) = Cluster::start() else { return };
    for test in [
        a_job_is_drawn_by_one_and_seen_by_all,
        clients_take_turns_and_positions_are_those_turns,
        a_full_queue_refuses_on_every_replica,
        every_job_is_taken_once,
        cancelling_reaches_the_replica_that_draws,
        a_dead_replica_gives_its_job_to_another,
        a_stop_gives_back_what_runs,
        a_stop_lets_go_those_who_wait_for_another_replica,
        a_lost_connection_is_made_again,
        a_thread_of_a_runtime_may_ask,
        the_way_is_encrypted_if_asked,
        the_end_of_a_job_outlives_a_lost_connection,
        too_many_and_too_large_jobs_go,
    ] {
        test(&cluster);
        cluster.clear();
    }
}

fn a_job_is_drawn_by_one_and_seen_by_all(cluster: &Cluster) {
    let (one, two) = (cluster.replica(Keep::default()), cluster.replica(Keep::default()));
    let job = one.submit(new("a", "1")).unwrap();
    assert_eq!((job.position, job.seed), (Some(1), u64::MAX));
    let (seen, mut events) = one.watch(job.id).unwrap().unwrap();
    assert_eq!(seen, job);
    let taken = two.take(SOON).unwrap().unwrap();
    assert_eq!((taken.id, taken.job.previews, taken.job.request.prompt.as_str()), (job.id, 3, "1"));
    assert!(one.take(SOON).unwrap().is_none());
    two.update(job.id, Update::Progress(JobProgress { fraction: 0.5, ..JobProgress::default() })).unwrap();
    two.update(job.id, image(0, 5)).unwrap();
    thread::sleep(Duration::from_millis(600));
    two.finish(job.id, Outcome::Finished).unwrap();
    let job = one.job(job.id).unwrap().unwrap();
    assert_eq!((job.state, job.images.len(), job.position), (JobState::Finished, 1, None));
    assert_eq!(one.picture(job.id, 0).unwrap().unwrap(), vec![0; 5]);
    assert_eq!(one.depth().unwrap(), Depth { waiting: 0, running: 0, kept: 1, bytes: 5 });
    let (mut told, ends) = (Vec::new(), Instant::now() + Duration::from_secs(20));
    while told.last().is_none_or(|last| last != "job finished") {
        match events.try_recv() {
            Ok(JobEvent::Job(job)) => told.push(format!("job {}", job.state.name())),
            Ok(JobEvent::Progress(progress)) => told.push(format!("progress {}", progress.fraction)),
            Ok(JobEvent::Image(image)) => told.push(format!("image {}", image.index)),
            Ok(other) => told.push(format!("{other:?}")),
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
        assert!(Instant::now() < ends, "{told:?}");
    }
    assert!(told.starts_with(&["job running".to_owned()]), "{told:?}");
    assert!(told.contains(&"progress 0.5".to_owned()) && told.contains(&"image 0".to_owned()), "{told:?}");
    assert!(two.remove(job.id).unwrap() && one.job(job.id).unwrap().is_none());
}

fn clients_take_turns_and_positions_are_those_turns(cluster: &Cluster) {
    let store = cluster.replica(Keep::default());
    for (client, prompt) in [("many", "1"), ("many", "2"), ("many", "3"), ("one", "4"), ("two", "5")] {
        store.submit(new(client, prompt)).unwrap();
    }
    let mut placed: Vec<(usize, JobId)> = Vec::new();
    for client in ["many", "one", "two"] {
        placed.extend(store.jobs(client).unwrap().iter().map(|job| (job.position.unwrap(), job.id)));
    }
    placed.sort_unstable();
    let taken: Vec<_> = (0..5).map(|_| store.take(SOON).unwrap().unwrap()).collect();
    assert_eq!(taken.iter().map(|taken| &taken.job.request.prompt).collect::<Vec<_>>(), ["1", "4", "5", "2", "3"]);
    assert_eq!(
        placed.into_iter().map(|(_, id)| id).collect::<Vec<_>>(),
        taken.iter().map(|taken| taken.id).collect::<Vec<_>>()
    );
}

fn a_full_queue_refuses_on_every_replica(cluster: &Cluster) {
    let keep = Keep { queue: 3, queue_of_client: 2, ..Keep::default() };
    let (one, two) = (cluster.replica(keep.clone()), cluster.replica(keep));
    one.submit(new("a", "1")).unwrap();
    two.submit(new("a", "2")).unwrap();
    assert!(matches!(one.submit(new("a", "3")), Err(StoreError::ClientFull { waiting: 2 })));
    one.submit(new("b", "4")).unwrap();
    assert!(matches!(two.submit(new("c", "5")), Err(StoreError::Full { waiting: 3 })));
}

fn every_job_is_taken_once(cluster: &Cluster) {
    let keep = Keep { queue: 100, queue_of_client: 100, ..Keep::default() };
    let submitted: std::collections::BTreeSet<JobId> = {
        let store = cluster.replica(keep.clone());
        (0..60).map(|index| store.submit(new(&(index % 3).to_string(), "x")).unwrap().id).collect()
    };
    let replicas: Vec<_> = (0..4).map(|_| cluster.replica(keep.clone())).collect();
    let taken = thread::scope(|scope| {
        let threads: Vec<_> = replicas
            .iter()
            .map(|replica| {
                scope.spawn(|| {
                    std::iter::from_fn(|| replica.take(SOON).unwrap()).map(|taken| taken.id).collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(taken.len(), 60);
    assert_eq!(taken.into_iter().collect::<std::collections::BTreeSet<_>>(), submitted);
}

fn cancelling_reaches_the_replica_that_draws(cluster: &Cluster) {
    let (one, two) = (cluster.replica(Keep::default()), cluster.replica(Keep::default()));
    let (runs, waits) = (one.submit(new("a", "1")).unwrap().id, one.submit(new("a", "2")).unwrap().id);
    let taken = two.take(SOON).unwrap().unwrap();
    assert_eq!(one.cancel(waits).unwrap().unwrap().state, JobState::Cancelled);
    assert_eq!(one.cancel(runs).unwrap().unwrap().state, JobState::Cancelled);
    let ends = Instant::now() + Duration::from_secs(20);
    while !taken.stop.asked() {
        assert!(Instant::now() < ends);
        thread::sleep(Duration::from_millis(20));
    }
    // What it still draws is thrown away.
    two.update(runs, image(0, 1)).unwrap();
    two.finish(runs, Outcome::Finished).unwrap();
    let job = one.job(runs).unwrap().unwrap();
    assert_eq!((job.state, job.images.len()), (JobState::Cancelled, 0));
    assert_eq!(one.cancel(JobId::nil()).unwrap(), None);
}

fn a_dead_replica_gives_its_job_to_another(cluster: &Cluster) {
    let keep = Keep::default();
    let (dead, alive) = (cluster.replica(keep.clone()), cluster.replica(keep));
    let id = alive.submit(new("a", "1")).unwrap().id;
    for attempt in 1..=2 {
        let before = if attempt == 1 { &dead } else { &alive };
        assert_eq!(before.take(Duration::from_secs(30)).unwrap().unwrap().id, id, "attempt {attempt}");
        // It renews nothing any more.
        before.follower.lets_go(id);
    }
    // What the dead one has still drawn does not count.
    dead.update(id, image(0, 1)).unwrap();
    dead.finish(id, Outcome::Finished).unwrap();
    let ends = Instant::now() + Duration::from_secs(30);
    while alive.job(id).unwrap().unwrap().state != JobState::Failed {
        assert!(Instant::now() < ends, "{:?}", alive.job(id));
        thread::sleep(Duration::from_millis(50));
    }
    let job = alive.job(id).unwrap().unwrap();
    assert_eq!((job.error.unwrap().code.as_str(), job.images.len()), ("gave_up", 0));
}

fn a_stop_gives_back_what_runs(cluster: &Cluster) {
    let (one, two) = (cluster.replica(Keep::default()), cluster.replica(Keep::default()));
    let id = one.submit(new("a", "1")).unwrap().id;
    for _ in 0..3 {
        // A stop is no failure of the job, however often.
        let taken = one.take(SOON).unwrap().unwrap();
        one.given_up.store(true, Ordering::SeqCst);
        one.finish(taken.id, Outcome::Cancelled).unwrap();
    }
    one.stop(true).unwrap();
    assert!(matches!(one.take(SOON), Err(StoreError::Stopped)));
    assert!(matches!(one.submit(new("a", "2")), Err(StoreError::Stopped)));
    assert_eq!(two.take(SOON).unwrap().unwrap().id, id);
}

fn a_stop_lets_go_those_who_wait_for_another_replica(cluster: &Cluster) {
    let (one, two) = (cluster.replica(Keep::default()), cluster.replica(Keep::default()));
    let id = one.submit(new("a", "1")).unwrap().id;
    two.take(SOON).unwrap().unwrap();
    let (_, mut early) = one.watch(id).unwrap().unwrap();
    one.stop(false).unwrap();
    // Its own jobs may still run, and are told of.
    assert!(!early.is_closed());
    one.stop(true).unwrap();
    let (_, mut late) = one.watch(id).unwrap().unwrap();
    for events in [&mut early, &mut late] {
        while events.try_recv().is_ok() {}
        assert!(events.is_closed());
    }
    assert_eq!(two.job(id).unwrap().unwrap().state, JobState::Running);
}

fn a_lost_connection_is_made_again(cluster: &Cluster) {
    let (one, other) = (cluster.replica(Keep::default()), cluster.replica(Keep::default()));
    let id = one.submit(new("a", "1")).unwrap().id;
    let others =
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND usename = 'ediffi'";
    other.connection.with(|client| client.query(others, &[])).unwrap();
    let ends = Instant::now() + Duration::from_secs(20);
    while !matches!(one.job(id), Ok(Some(_))) {
        assert!(Instant::now() < ends);
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(one.take(SOON).unwrap().unwrap().id, id);
}

fn the_end_of_a_job_outlives_a_lost_connection(cluster: &Cluster) {
    let (one, other) = (cluster.replica(Keep::default()), cluster.replica(Keep::default()));
    let id = one.submit(new("a", "1")).unwrap().id;
    one.take(SOON).unwrap().unwrap();
    let others =
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND usename = 'ediffi'";
    other.connection.with(|client| client.query(others, &[])).unwrap();
    one.finish(id, Outcome::Finished).unwrap();
    assert_eq!(other.job(id).unwrap().unwrap().state, JobState::Finished);
}

fn too_many_and_too_large_jobs_go(cluster: &Cluster) {
    let kept = |keep: Keep| {
        cluster.clear();
        let store = cluster.replica(Keep::default());
        for index in 0..4 {
            let id = store.submit(new("a", "1")).unwrap().id;
            store.take(SOON).unwrap().unwrap();
            store.update(id, image(0, 10)).unwrap();
            store.finish(id, Outcome::Finished).unwrap();
            assert_eq!(store.depth().unwrap().kept, index + 1);
        }
        follower::sweep_out(&store.connection, &keep).unwrap();
        store.depth().unwrap().kept
    };
    assert_eq!(kept(Keep::default()), 4);
    assert_eq!(kept(Keep { jobs: 3, ..Keep::default() }), 3);
    assert_eq!(kept(Keep { bytes: 25, ..Keep::default() }), 2);
    assert_eq!(kept(Keep { for_long: Duration::ZERO, ..Keep::default() }), 0);
}

fn a_thread_of_a_runtime_may_ask(cluster: &Cluster) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = cluster.replica(Keep::default());
        let id = store.submit(new("a", "1")).unwrap().id;
        assert_eq!(store.job(id).unwrap().unwrap().position, Some(1));
    });
}

#[test]
fn a_database_that_is_not_there_is_an_error() {
    let error = PostgresStore::connect("host=/nowhere user=x", Keep::default(), LEASE).unwrap_err();
    assert!(matches!(error, StoreError::Database(_)), "{error}");
    assert!(PostgresStore::connect("hots=x", Keep::default(), LEASE).unwrap_err().to_string().contains("hots"));
}

fn the_way_is_encrypted_if_asked(cluster: &Cluster) {
    let parameters = |mode: &str| format!("postgresql://ediffi@localhost:{}/postgres?sslmode={mode}", cluster.port);
    let trusted = || {
        let certificate = cluster.folder.path().join("certificate.pem");
        let mut trusted = rustls::RootCertStore::empty();
        let found = rustls_native_certs::load_certs_from_paths(Some(&certificate), None);
        trusted.add_parsable_certificates(found.certs);
        trusted
    };
    let encrypted = |mode: &str| {
        let connection = Connection::open_trusting(&parameters(mode), trusted).unwrap();
        let asked = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        connection.with(|client| Ok(client.query_one(asked, &[])?.get::<_, bool>(0))).unwrap()
    };
    assert!(encrypted("require") && !encrypted("disable"));
    // The certificate is nobody's that the machine trusts.
    assert!(Connection::open(&parameters("require")).is_err());
    let error = Connection::open(&parameters("prefer")).unwrap_err().to_string();
    assert!(error.contains("`sslmode=prefer`"), "{error}");
}
