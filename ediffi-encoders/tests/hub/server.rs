//! A small server that speaks the protocol of the Hugging Face hub.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use sha2::{Digest, Sha256};

/// The commit that a repository of one commit has.
pub(crate) const FIRST: &str = "0123456789abcdef0123456789abcdef01234567";
/// Files from this size on are kept outside git, and lie behind a redirection.
pub(crate) const LARGE: usize = 1 << 20;

pub(crate) type Files = HashMap<String, Vec<u8>>;

#[derive(Default)]
pub(crate) struct Server {
    /// The files of each commit.
    pub(crate) commits: HashMap<&'static str, Files>,
    /// The commit that `main` is, and the one that it becomes as soon as somebody has asked for it.
    pub(crate) main: Mutex<&'static str>,
    pub(crate) then: Mutex<Option<&'static str>>,
    pub(crate) requests: Mutex<Vec<String>>,
    /// How many bytes of large files may be sent before connections break.
    pub(crate) patience: Mutex<Option<usize>>,
    /// A byte of large files that arrives changed.
    pub(crate) flipped: Mutex<Option<usize>>,
    /// Whether large files are sent whole whatever part of them is asked for.
    pub(crate) ignores_ranges: bool,
    /// By how many bytes large files are longer where they are listed than they are.
    pub(crate) longer: isize,
    /// The length that the answers with large files name, where it is not their own.
    pub(crate) length: Option<u64>,
    /// The status and the length of the answer to those who ask for a list of files, where it is not the list.
    pub(crate) busy: Mutex<Option<(&'static str, usize)>>,
    pub(crate) token: Option<String>,
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Server {
    /// A repository of one commit.
    pub(crate) fn of(files: Files) -> Self {
        Self { commits: HashMap::from([(FIRST, files)]), main: Mutex::new(FIRST), ..Self::default() }
    }

    /// Serves `org/name` on a port of this machine.
    pub(crate) fn start(self) -> (Arc<Self>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (server, own) = (Arc::new(self), address.clone());
        let shared = Arc::clone(&server);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (server, address) = (Arc::clone(&shared), own.clone());
                // A connection that the client gives up is no fault of the server.
                std::thread::spawn(move || drop(server.answer(stream, &address)));
            }
        });
        (server, address)
    }

    pub(crate) fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.requests.lock().unwrap())
    }

    fn answer(&self, mut stream: TcpStream, address: &str) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        loop {
            let mut lines = Vec::new();
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line)? == 0 {
                    return Ok(());
                }
                if line.trim().is_empty() {
                    break;
                }
                lines.push(line.trim().to_owned());
            }
            let header = |name: &str| {
                lines.iter().find_map(|line| {
                    let (key, value) = line.split_once(": ")?;
                    key.eq_ignore_ascii_case(name).then(|| value.to_owned())
                })
            };
            let mut body = vec![0; header("content-length").map_or(0, |length| length.parse().unwrap())];
            reader.read_exact(&mut body)?;
            let mut first = lines[0].split(' ');
            let (method, path) = (first.next().unwrap(), first.next().unwrap());
            let range = header("range");
            self.requests.lock().unwrap().push(format!("{method} {path} {}", range.clone().unwrap_or_default()));
            if self.token.as_ref().is_some_and(|token| header("authorization") != Some(format!("Bearer {token}"))) {
                respond(&mut stream, "401 Unauthorized", &[], Some(b"{}"))?;
            } else if path == "/api/models/org/name/revision/main" {
                let mut main = self.main.lock().unwrap();
                let info = serde_json::json!({ "id": "org/name", "sha": *main });
                *main = self.then.lock().unwrap().take().unwrap_or(*main);
                respond(&mut stream, "200 OK", &[], Some(info.to_string().as_bytes()))?;
            } else if let Some(files) =
                path.strip_prefix("/api/models/org/name/paths-info/").and_then(|r| self.files(r))
            {
                let asked: HashMap<String, Vec<String>> = serde_json::from_slice(&body)?;
                let found: Vec<_> = asked["paths"].iter().filter_map(|path| self.listed(files, path)).collect();
                match *self.busy.lock().unwrap() {
                    Some((status, length)) => respond(&mut stream, status, &[], Some(&vec![b' '; length]))?,
                    None => respond(&mut stream, "200 OK", &[], Some(serde_json::to_string(&found)?.as_bytes()))?,
                }
            } else if let Some((commit, file, bytes)) = self.file(path, "/org/name/resolve/") {
                let tag = if bytes.len() < LARGE { object(bytes) } else { sha256(bytes) };
                let facts = [
                    format!("X-Repo-Commit: {commit}"),
                    format!("X-Linked-Size: {}", bytes.len()),
                    format!("{}: \"{tag}\"", if bytes.len() < LARGE { "ETag" } else { "X-Linked-Etag" }),
                ];
                if bytes.len() < LARGE {
                    respond(&mut stream, "200 OK", &facts, (method == "GET").then_some(bytes))?;
                } else {
                    let facts = [&facts[..], &[format!("Location: {address}/elsewhere/{commit}/{file}")]].concat();
                    respond(&mut stream, "302 Found", &facts, Some(b""))?;
                }
            } else if let Some((_, _, bytes)) = self.file(path, "/elsewhere/") {
                self.send_part(&mut stream, method, bytes, range.as_deref())?;
            } else {
                respond(&mut stream, "404 Not Found", &["X-Error-Code: EntryNotFound".to_owned()], Some(b"{}"))?;
            }
        }
    }

    /// The files of the state `revision`.
    fn files(&self, revision: &str) -> Option<&Files> {
        self.commits.get(if revision == "main" { *self.main.lock().unwrap() } else { revision })
    }

    /// The commit, the name and the content of the file at `path` below `root`.
    fn file<'a>(&'a self, path: &'a str, root: &str) -> Option<(&'a str, &'a str, &'a [u8])> {
        let (revision, file) = path.strip_prefix(root)?.split_once('/')?;
        let commit = if revision == "main" { *self.main.lock().unwrap() } else { revision };
        Some((commit, file, self.files(revision)?.get(file)?))
    }

    /// Sends a range, or breaks off when the patience is at its end.
    fn send_part(
        &self,
        stream: &mut TcpStream,
        method: &str,
        bytes: &[u8],
        range: Option<&str>,
    ) -> std::io::Result<()> {
        let range = range.filter(|_| !self.ignores_ranges);
        let start = range.map_or(0, |range| {
            range.strip_prefix("bytes=").and_then(|range| range.strip_suffix('-')).unwrap().parse().unwrap()
        });
        let mut part = bytes[start..].to_vec();
        if let Some(byte) = self.flipped.lock().unwrap().and_then(|at| part.get_mut(at.checked_sub(start)?)) {
            *byte ^= 1;
        }
        if method == "HEAD" {
            return respond(stream, "200 OK", &[format!("X-Linked-Size: {}", bytes.len())], None);
        }
        let status = match range {
            Some(_) => {
                format!("206 Partial Content\r\nContent-Range: bytes {start}-{}/{}", bytes.len() - 1, bytes.len())
            }
            None => "200 OK".to_owned(),
        };
        let length = self.length.unwrap_or(part.len() as u64);
        write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n")?;
        let sent = self.patience.lock().unwrap().as_mut().map_or(part.len(), |left| {
            let sent = part.len().min(*left);
            *left -= sent;
            sent
        });
        stream.write_all(&part[..sent])?;
        if sent as u64 == length { Ok(()) } else { stream.shutdown(std::net::Shutdown::Both) }
    }

    fn listed(&self, files: &Files, path: &str) -> Option<serde_json::Value> {
        let bytes = files.get(path)?;
        let mut entry = serde_json::json!({ "type": "file", "path": path, "size": bytes.len(), "oid": object(bytes) });
        if bytes.len() >= LARGE {
            let size = bytes.len().strict_add_signed(self.longer);
            entry["size"] = size.into();
            entry["lfs"] = serde_json::json!({ "oid": sha256(bytes), "size": size, "pointerSize": 130 });
        }
        Some(entry)
    }
}

/// A name for a small file's content.
fn object(bytes: &[u8]) -> String {
    sha256(bytes)[..40].to_owned()
}

fn respond(stream: &mut TcpStream, status: &str, facts: &[String], body: Option<&[u8]>) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {status}\r\n");
    for fact in facts {
        head += &format!("{fact}\r\n");
    }
    if let Some(body) = body {
        head += &format!("Content-Length: {}\r\n", body.len());
    } else if let Some(size) = facts.iter().find_map(|fact| fact.strip_prefix("X-Linked-Size: ")) {
        head += &format!("Content-Length: {size}\r\n");
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    stream.write_all(body.unwrap_or_default())
}
