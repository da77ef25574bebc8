//! What the egress log proves: what left for whom, and that the log is whole.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::log::{EgressLog, Entry, EntryKind, LINE_MOST, LogError, NO_HASH, broken, unsealed};
use super::{Keeping, Privacy};

/// Which entries are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Only this team's; absent: everybody's.
    pub team: Option<String>,
    /// Not before. Units: milliseconds since 1970.
    pub from_ms: Option<u64>,
    /// Before.
    pub to_ms: Option<u64>,
    /// The hash of a line that must still be there: a head of an earlier proof.
    pub head: Option<String>,
}

impl Query {
    fn asks_for(&self, entry: &Entry) -> bool {
        entry.kind == EntryKind::Sent
            && (self.team.is_none() || self.team == entry.team)
            && self.from_ms.is_none_or(|from| entry.time_ms >= from)
            && self.to_ms.is_none_or(|to| entry.time_ms < to)
    }
}

/// Requests, and the bytes they took along.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counted {
    /// How many left.
    pub requests: u64,
    /// Bytes they took along.
    pub bytes: u64,
}

impl Counted {
    fn add(&mut self, entry: &Entry) {
        self.requests += 1;
        self.bytes = self.bytes.saturating_add(entry.bytes);
    }
}

/// What left, according to a log whose every line was checked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Proof {
    /// What was asked for, together.
    pub total: Counted,
    /// The same by privacy class.
    pub by_class: BTreeMap<&'static str, Counted>,
    /// The same by what becomes of it there; where a line does not say so, it may be kept.
    pub by_keeping: BTreeMap<&'static str, Counted>,
    /// The same by provider.
    pub by_provider: BTreeMap<String, Counted>,
    /// When the first of it left. Units: milliseconds since 1970, so for the last.
    pub first_ms: Option<u64>,
    /// When the last of it left.
    pub last_ms: Option<u64>,
    /// Of it, what was for this machine and machines of ours only.
    pub local_only: Counted,
    /// Of that, what went to other machines than ours.
    pub local_only_elsewhere: Counted,
    /// Of it, what went where its class does not allow: nothing, unless the program is wrong.
    pub forbidden: Counted,
    /// The line of the first of these, counted from 1.
    pub first_forbidden: Option<u64>,
    /// Lines of the whole log.
    pub n_entries: u64,
    /// Of them, those that tell of a line that was not finished.
    pub n_repaired: u64,
    /// The hash of its last line: whoever keeps it can tell later that nothing was cut off.
    pub head: String,
}

impl Proof {
    /// An entry that is asked for.
    fn count(&mut self, entry: &Entry, line: u64) {
        let keeping = entry.keeping.unwrap_or(Keeping::Maybe);
        self.total.add(entry);
        let class = self.by_class.entry(entry.class.name());
        class.or_default().add(entry);
        self.by_keeping
            .entry(keeping.name())
            .or_default()
            .add(entry);
        let provider = self.by_provider.entry(entry.provider.clone());
        provider.or_default().add(entry);
        // A clock that was put back does not turn them round.
        let (first, last) = (self.first_ms, self.last_ms);
        self.first_ms = first.into_iter().chain([entry.time_ms]).min();
        self.last_ms = last.into_iter().chain([entry.time_ms]).max();
        if entry.class == Privacy::LocalOnly {
            self.local_only.add(entry);
            if keeping != Keeping::Ours {
                self.local_only_elsewhere.add(entry);
            }
        }
        if !entry.class.allows(keeping) {
            self.forbidden.add(entry);
            self.first_forbidden.get_or_insert(line);
        }
    }
}

/// Where what left is written down.
#[derive(Clone, Debug)]
pub enum Records {
    /// In the log of this process.
    Open(Arc<EgressLog>),
    /// In a file that others write, if anybody does.
    File(PathBuf),
}

impl Records {
    /// What left, whoever wrote it down.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn proof(&self, query: &Query) -> Result<Proof, LogError> {
        match self {
            Self::Open(log) => log.proof(query),
            Self::File(path) => EgressLog::proof_of(path, query),
        }
    }
}

impl EgressLog {
    /// Checks every line that was written so far and counts those that are asked for.
    ///
    /// # Errors
    /// [`LogError::Broken`] names the first line that is not as it was written, [`LogError::Lost`] a head that was
    /// remembered and is gone.
    pub fn proof(&self, query: &Query) -> Result<Proof, LogError> {
        let (n_bytes, head) = self.head();
        let file = File::open(self.path()).map_err(|error| self.failed(&error))?;
        let lines = BufReader::new(file.take(n_bytes));
        let proof = checked(lines, self.path(), query, Unfinished::Broken)?;
        if proof.head != head {
            let reason = "it is not the line that was written last";
            return Err(broken(self.path(), proof.n_entries, reason));
        }
        Ok(proof)
    }

    /// The same of the file at `path`, whoever writes it; where there is none nothing ever left.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn proof_of(path: &Path, query: &Query) -> Result<Proof, LogError> {
        let failed = |error: &io::Error| LogError::Io {
            path: path.to_owned(),
            reason: error.to_string(),
        };
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return checked(io::empty(), path, query, Unfinished::Broken);
            }
            Err(error) => return Err(failed(&error)),
        };
        let unfinished = match file.try_lock_shared() {
            // Whoever wants to write now need not wait.
            Ok(()) => {
                file.unlock().map_err(|error| failed(&error))?;
                Unfinished::Broken
            }
            Err(TryLockError::WouldBlock) => Unfinished::UnderWay,
            Err(TryLockError::Error(error)) => return Err(failed(&error)),
        };
        checked(BufReader::new(file), path, query, unfinished)
    }
}

/// What a last line without an end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unfinished {
    /// Not as it was written.
    Broken,
    /// Being written.
    UnderWay,
}

fn checked(
    mut lines: impl BufRead,
    path: &Path,
    query: &Query,
    unfinished: Unfinished,
) -> Result<Proof, LogError> {
    let mut is_there = query.head.as_deref().is_none_or(|head| head == NO_HASH);
    let mut proof = Proof {
        head: NO_HASH.to_owned(),
        ..Proof::default()
    };
    let mut line = String::new();
    loop {
        let number = proof.n_entries + 1;
        line.clear();
        let read = (&mut lines).take(LINE_MOST as u64).read_line(&mut line);
        match read {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) => return Err(broken(path, number, &error.to_string())),
        }
        let whole = line.strip_suffix('\n');
        if whole.is_none() && line.len() < LINE_MOST && unfinished == Unfinished::UnderWay {
            break;
        }
        let whole = whole.ok_or_else(|| broken(path, number, "it was not finished"))?;
        let (entry, hash) = unsealed(whole).map_err(|reason| broken(path, number, reason))?;
        if entry.seq != proof.n_entries {
            return Err(broken(
                path,
                number,
                "a line before it is missing or too many",
            ));
        }
        if entry.previous != proof.head {
            return Err(broken(path, number, "it does not follow the line above"));
        }
        is_there |= query.head.as_deref() == Some(&*hash);
        proof.head = hash;
        proof.n_entries += 1;
        if entry.kind == EntryKind::Repaired {
            proof.n_repaired += 1;
        }
        if query.asks_for(&entry) {
            proof.count(&entry, number);
        }
    }
    match &query.head {
        Some(head) if !is_there => Err(LogError::Lost {
            path: path.to_owned(),
            head: head.clone(),
        }),
        _ => Ok(proof),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;
    use crate::egress::{Egress, ProviderPermit, Purpose};

    fn permit(team: &str, privacy: Privacy) -> ProviderPermit {
        let purpose = Purpose {
            request_id: "r1".to_owned(),
            team: Some(team.to_owned()),
            why: "predicted \"miss\"\n".to_owned(),
        };
        Egress::new(false)
            .provider(privacy, "openrouter", Keeping::Nothing, purpose)
            .unwrap()
    }

    /// A log of three lines.
    fn written(path: &Path) -> EgressLog {
        let log = EgressLog::open(path).unwrap();
        for (team, privacy, sent) in [
            ("a", Privacy::Any, "four"),
            ("b", Privacy::ZdrOnly, "sixsix"),
            ("a", Privacy::ZdrOnly, "ab"),
        ] {
            log.record(&permit(team, privacy), "h", sent.as_bytes())
                .unwrap();
        }
        log
    }

    #[test]
    fn what_left_is_counted_by_team_time_and_class() {
        let folder = tempfile::tempdir().unwrap();
        let log = written(&folder.path().join("egress.jsonl"));
        let all = log.proof(&Query::default()).unwrap();
        assert_eq!((all.total.requests, all.total.bytes), (3, 12));
        assert_eq!(
            all.by_class["zdr_only"],
            Counted {
                requests: 2,
                bytes: 8
            }
        );
        assert_eq!(all.by_provider["openrouter"].requests, 3);
        let team = Some("a".to_owned());
        let query = Query {
            team,
            ..Query::default()
        };
        assert_eq!(
            log.proof(&query).unwrap().total,
            Counted {
                requests: 2,
                bytes: 6
            }
        );
        let past = Query {
            to_ms: Some(1),
            ..Query::default()
        };
        let none = log.proof(&past).unwrap();
        assert_eq!((none.total.requests, none.n_entries), (0, 3));
        assert_eq!(none.head, all.head);
    }

    #[test]
    fn a_log_goes_on_where_it_ended_and_has_one_writer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("egress.jsonl");
        let log = written(&path);
        assert!(matches!(
            EgressLog::open(&path),
            Err(LogError::InUse { .. })
        ));
        drop(log);
        let log = written(&path);
        assert_eq!(log.proof(&Query::default()).unwrap().n_entries, 6);
    }

    #[test]
    fn every_change_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("egress.jsonl");
        drop(written(&path));
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        let proof_of = |text: &str| {
            fs::write(&path, text).unwrap();
            EgressLog::proof_of(&path, &Query::default())
        };
        assert!(proof_of(&text).is_ok());
        for changed in [
            text.replacen("\"team\":\"a\"", "\"team\":\"b\"", 1),
            text.replacen("any", "zdr_only", 1),
            [lines[1], lines[2]].concat(),
            [lines[0], lines[2]].concat(),
            [lines[0], lines[2], lines[1]].concat(),
            [lines[0], lines[0], lines[1]].concat(),
            text.replace("\"bytes\":6", "\"bytes\":7"),
            text[..text.len() - 1].to_owned(),
        ] {
            let found = proof_of(&changed);
            assert!(matches!(found, Err(LogError::Broken { .. })), "{changed}");
        }
        // Every single byte counts.
        for at in (0..text.len()).step_by(7) {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            if let Ok(changed) = String::from_utf8(bytes) {
                assert!(proof_of(&changed).is_err(), "byte {at}");
            }
        }
        // A log that was cut short between lines is whole by itself: the head that was kept tells.
        let whole = proof_of(&text).unwrap();
        let first = proof_of(lines[0]).unwrap();
        assert_eq!(first.n_entries, 1);
        let kept = |proof: &Proof| Query {
            head: Some(proof.head.clone()),
            ..Query::default()
        };
        let lost = EgressLog::proof_of(&path, &kept(&whole));
        assert!(matches!(lost, Err(LogError::Lost { .. })), "{lost:?}");
        proof_of(&text).unwrap();
        for proof in [&first, &whole] {
            assert_eq!(EgressLog::proof_of(&path, &kept(proof)).unwrap(), whole);
        }
    }

    #[test]
    fn what_went_where_its_class_does_not_allow_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("egress.jsonl");
        let log = written(&path);
        let egress = Egress::new(false);
        let ours = egress.provider(
            Privacy::LocalOnly,
            "gpu-1",
            Keeping::Ours,
            Purpose::default(),
        );
        log.record(&ours.unwrap(), "gpu-1", b"abc").unwrap();
        let proof = log.proof(&Query::default()).unwrap();
        assert_eq!(proof.local_only.requests, 1);
        assert_eq!((proof.forbidden.requests, proof.first_forbidden), (0, None));
        assert_eq!(proof.by_keeping["ours"].bytes, 3);
        assert_eq!(proof.by_keeping["nothing"].requests, 3);
        assert!(proof.first_ms <= proof.last_ms && proof.first_ms > Some(0));
        // No permit for that is issued, so the program itself would have to be wrong.
        let wrong = ProviderPermit {
            privacy: Privacy::LocalOnly,
            keeping: Keeping::Nothing,
            provider: "openrouter".to_owned(),
            purpose: Purpose::default(),
        };
        log.record(&wrong, "h", b"ab").unwrap();
        let proof = log.proof(&Query::default()).unwrap();
        assert_eq!(
            proof.forbidden,
            Counted {
                requests: 1,
                bytes: 2
            }
        );
        assert_eq!(proof.first_forbidden, Some(5));
    }

    #[test]
    fn a_line_that_is_being_written_is_not_there_yet_and_no_log_is_an_empty_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("egress.jsonl");
        let proof = || EgressLog::proof_of(&path, &Query::default());
        assert_eq!(
            (proof().unwrap().n_entries, &*proof().unwrap().head),
            (0, NO_HASH)
        );
        let log = written(&path);
        let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"seq\":3").unwrap();
        assert_eq!(proof().unwrap().n_entries, 3);
        // Whose process has died it never was finished.
        drop(log);
        assert!(matches!(proof(), Err(LogError::Broken { line: 4, .. })));
    }

    #[test]
    fn a_running_log_notices_that_its_file_was_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("egress.jsonl");
        let log = written(&path);
        let text = fs::read_to_string(&path).unwrap();
        let first = text.split_inclusive('\n').next().unwrap();
        fs::write(&path, first).unwrap();
        assert!(matches!(
            log.proof(&Query::default()),
            Err(LogError::Broken { .. })
        ));
    }

    #[test]
    fn a_line_that_was_not_finished_is_replaced_by_one_that_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("egress.jsonl");
        for torn in ["{\"seq\":3,\"ti", "x", "{}"] {
            let _ = fs::remove_file(&path);
            drop(written(&path));
            let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
            file.write_all(torn.as_bytes()).unwrap();
            drop(file);
            let log = written(&path);
            let proof = log.proof(&Query::default()).unwrap();
            assert_eq!((proof.n_entries, proof.n_repaired), (7, 1));
            assert_eq!(proof.total.requests, 6);
        }
        // A first line, too.
        fs::write(&path, "{\"se").unwrap();
        assert_eq!(
            written(&path).proof(&Query::default()).unwrap().n_entries,
            4
        );
    }

    #[test]
    fn a_log_whose_end_was_changed_is_not_gone_on_with() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("egress.jsonl");
        drop(written(&path));
        let text = fs::read_to_string(&path).unwrap();
        for changed in [
            text.replace("\"bytes\":2", "\"bytes\":3"),
            "\n".to_owned(),
            "no\n".to_owned(),
        ] {
            fs::write(&path, changed).unwrap();
            let opened = EgressLog::open(&path);
            assert!(matches!(opened, Err(LogError::Broken { .. })), "{opened:?}");
        }
    }
}
