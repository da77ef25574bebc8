//! The egress log: one line for everything that leaves for a provider, each sealed together with the one before
//! it, so that none can be changed, taken out or put in unseen.
//!
//! A line is a JSON object whose last field, `hash`, is the checksum of all that stands before it; `previous` is
//! the hash of the line above. Who keeps the head's hash elsewhere can tell later that nothing was cut off either.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Keeping, Privacy, ProviderPermit};

/// Characters of each text of an entry.
const TEXT_MOST: usize = 256;
/// Bytes of a line: six texts, every character escaped, and the rest.
pub(super) const LINE_MOST: usize = 16 << 10;
/// The hash that the first line follows.
pub(super) const NO_HASH: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Why nothing could be written or proved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The file cannot be read or written.
    #[error("the egress log {} cannot be used: {reason}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// Another process writes to it.
    #[error("the egress log {} is written by another process: stop that one, or give this one another home", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// A line that somebody remembers is not there.
    #[error("the egress log {} has no line with the hash {head}: lines were cut off, or it is another log", path.display())]
    Lost {
        /// The file.
        path: PathBuf,
        /// The hash.
        head: String,
    },
    /// A line is not as it was written.
    #[error("line {line} of the egress log {} is not as it was written: {reason}; keep the file as evidence and move it away to start a new one", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// Counted from 1; of the file's end when the log is opened.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
}

/// What an entry tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    /// A request that was about to leave.
    Sent,
    /// A line the process or the machine died over was taken away: `bytes` and `sha256` are of what stood there.
    Repaired,
}

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Entry {
    /// Counted from 0, without a gap.
    pub seq: u64,
    /// Milliseconds since 1970.
    pub time_ms: u64,
    /// What the entry tells of.
    pub kind: EntryKind,
    /// The request.
    pub request_id: String,
    /// Whose it was.
    pub team: Option<String>,
    /// How far it was allowed to go.
    pub class: Privacy,
    /// Why it left.
    pub why: String,
    /// To whom.
    pub provider: String,
    /// What becomes of it there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keeping: Option<Keeping>,
    /// To which host.
    pub host: String,
    /// Bytes of what was sent, without headers.
    pub bytes: u64,
    /// Their checksum.
    pub sha256: String,
    /// The hash of the line above.
    pub previous: String,
}

/// The log, open for writing: one a process, and one process a file.
#[derive(Debug)]
pub struct EgressLog {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    file: File,
    next_seq: u64,
    /// The hash of the last line.
    head: String,
    /// Whole lines end here.
    n_bytes: u64,
}

impl EgressLog {
    /// Opens the log at `path`, and makes it where there is none. A last line that was not finished is taken
    /// away, and an entry says so.
    ///
    /// # Errors
    /// [`LogError`]: also where its last line is not as it was written.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, LogError> {
        let path = path.into();
        let failed = |error: &io::Error| LogError::Io {
            path: path.clone(),
            reason: error.to_string(),
        };
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true);
        let mut file = options.open(&path).map_err(|error| failed(&error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(LogError::InUse { path }),
            Err(TryLockError::Error(error)) => return Err(failed(&error)),
        }
        let tail = Tail::read(&mut file).map_err(|error| failed(&error))?;
        let (next_seq, head) = match &tail.last {
            None if tail.whole == 0 => (0, NO_HASH.to_owned()),
            None => return Err(broken(&path, 0, "its end is no line")),
            Some(line) => {
                let (entry, hash) = unsealed(line).map_err(|reason| broken(&path, 0, reason))?;
                (entry.seq + 1, hash)
            }
        };
        let n_bytes = tail.whole;
        let state = State {
            file,
            next_seq,
            head,
            n_bytes,
        };
        let log = Self {
            path,
            state: Mutex::new(state),
        };
        if !tail.torn.is_empty() {
            log.repair(&tail.torn)?;
        }
        Ok(log)
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes that `sent` is about to leave for `host`. Nothing may leave where this fails.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn record(
        &self,
        permit: &ProviderPermit,
        host: &str,
        sent: &[u8],
    ) -> Result<u64, LogError> {
        let purpose = permit.purpose();
        let entry = Entry {
            request_id: cut(&purpose.request_id),
            team: purpose.team.as_deref().map(cut),
            class: permit.privacy(),
            why: cut(&purpose.why),
            provider: cut(permit.provider()),
            keeping: Some(permit.keeping()),
            host: cut(host),
            ..Entry::of(EntryKind::Sent, sent)
        };
        self.append(&mut self.state(), entry)
    }

    /// How many bytes of whole lines there are, and the hash of the last.
    pub(super) fn head(&self) -> (u64, String) {
        let state = self.state();
        (state.n_bytes, state.head.clone())
    }

    fn repair(&self, torn: &[u8]) -> Result<(), LogError> {
        let mut state = self.state();
        let n_bytes = state.n_bytes;
        let cut_off = state.file.set_len(n_bytes);
        cut_off.map_err(|error| self.failed(&error))?;
        let entry = Entry {
            why: "the last line was not finished".to_owned(),
            ..Entry::of(EntryKind::Repaired, torn)
        };
        self.append(&mut state, entry)?;
        Ok(())
    }

    fn append(&self, state: &mut State, entry: Entry) -> Result<u64, LogError> {
        let seq = state.next_seq;
        let entry = Entry {
            seq,
            previous: state.head.clone(),
            ..entry
        };
        let (line, hash) = sealed(&entry).map_err(|error| self.failed(&error.into()))?;
        if let Err(error) = state.file.write_all(line.as_bytes()) {
            // Half a line must not stand before the next one. Where it cannot be taken away either, the next
            // entry's line is found broken, as it should be.
            let _ = state.file.set_len(state.n_bytes);
            return Err(self.failed(&error));
        }
        state.next_seq += 1;
        state.head = hash;
        state.n_bytes += line.len() as u64;
        Ok(seq)
    }

    pub(super) fn failed(&self, error: &io::Error) -> LogError {
        LogError::Io {
            path: self.path.clone(),
            reason: error.to_string(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// An entry of `kind` about some bytes, now.
    fn of(kind: EntryKind, bytes: &[u8]) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let time_ms = since.map_or(0, |since| since.as_millis());
        Self {
            seq: 0,
            time_ms: u64::try_from(time_ms).unwrap_or(u64::MAX),
            kind,
            request_id: String::new(),
            team: None,
            class: Privacy::Any,
            why: String::new(),
            provider: String::new(),
            keeping: None,
            host: String::new(),
            bytes: bytes.len() as u64,
            sha256: hex::encode(Sha256::digest(bytes)),
            previous: String::new(),
        }
    }
}

/// The end of a log's file.
struct Tail {
    /// Bytes of whole lines.
    whole: u64,
    /// The last whole line, without its end.
    last: Option<String>,
    /// What stands behind it.
    torn: Vec<u8>,
}

impl Tail {
    fn read(file: &mut File) -> io::Result<Self> {
        let n_bytes = file.seek(SeekFrom::End(0))?;
        let start = n_bytes.saturating_sub(2 * LINE_MOST as u64);
        file.seek(SeekFrom::Start(start))?;
        let mut tail = Vec::new();
        // What is no file may have no end.
        Read::by_ref(file)
            .take(n_bytes - start)
            .read_to_end(&mut tail)?;
        let end = tail.iter().rposition(|byte| *byte == b'\n');
        let torn = tail.split_off(end.map_or(0, |end| end + 1));
        let whole = n_bytes - torn.len() as u64;
        tail.pop();
        let begin = tail.iter().rposition(|byte| *byte == b'\n');
        let line = tail.split_off(begin.map_or(0, |begin| begin + 1));
        // Where the line began before what was read, it is longer than any.
        let is_whole = begin.is_some() || start == 0;
        let last = String::from_utf8(line).ok().filter(|_| is_whole);
        Ok(Self {
            whole,
            last: last.filter(|line| !line.is_empty()),
            torn,
        })
    }
}

/// The line an entry becomes, and its hash.
fn sealed(entry: &Entry) -> serde_json::Result<(String, String)> {
    let mut line = serde_json::to_string(entry)?;
    let hash = hex::encode(Sha256::digest(&line));
    line.pop();
    line.push_str(",\"hash\":\"");
    line.push_str(&hash);
    line.push_str("\"}\n");
    Ok((line, hash))
}

/// The entry of a line and its hash, if that is right.
pub(super) fn unsealed(line: &str) -> Result<(Entry, String), &'static str> {
    let (open, hash) = line.rsplit_once(",\"hash\":\"").ok_or("it has no hash")?;
    let hash = hash.strip_suffix("\"}").ok_or("it has no end")?;
    let text = format!("{open}}}");
    if hex::encode(Sha256::digest(&text)) != hash {
        return Err("its hash is not that of its text");
    }
    let entry = serde_json::from_str(&text).map_err(|_| "it is no entry")?;
    Ok((entry, hash.to_owned()))
}

pub(super) fn broken(path: &Path, line: u64, reason: &str) -> LogError {
    LogError::Broken {
        path: path.to_owned(),
        line,
        reason: reason.to_owned(),
    }
}

fn cut(text: &str) -> String {
    text.chars().take(TEXT_MOST).collect()
}
