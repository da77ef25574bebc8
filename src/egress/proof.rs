//! What the egress log proves: what left for whom, and that the log is whole.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use serde::Serialize;

use super::log::{EgressLog, Entry, EntryKind, LINE_MOST, LogError, NO_HASH, broken, unsealed};

/// Which entries are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Only this team's; absent: everybody's.
    pub team: Option<String>,
    /// Not before. Units: milliseconds since 1970.
    pub from_ms: Option<u64>,
    /// Before.
    pub to_ms: Option<u64>,
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
    /// The same by provider.
    pub by_provider: BTreeMap<String, Counted>,
    /// Lines of the whole log.
    pub n_entries: u64,
    /// Of them, those that tell of a line that was not finished.
    pub n_repaired: u64,
    /// The hash of its last line: whoever keeps it can tell later that nothing was cut off.
    pub head: String,
}

impl EgressLog {
    /// Checks every line that was written so far and counts those that are asked for.
    ///
    /// # Errors
    /// [`LogError::Broken`] names the first line that is not as it was written.
    pub fn proof(&self, query: &Query) -> Result<Proof, LogError> {
        let (n_bytes, head) = self.head();
        let file = File::open(self.path()).map_err(|error| self.failed(&error))?;
        let proof = checked(BufReader::new(file.take(n_bytes)), self.path(), query)?;
        if proof.head != head {
            let reason = "it is not the line that was written last";
            return Err(broken(self.path(), proof.n_entries, reason));
        }
        Ok(proof)
    }

    /// The same of a log nobody writes to, or a copy of one.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn proof_of(path: &Path, query: &Query) -> Result<Proof, LogError> {
        let file = File::open(path).map_err(|error| LogError::Io {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
        checked(BufReader::new(file), path, query)
    }
}

fn checked(mut lines: impl BufRead, path: &Path, query: &Query) -> Result<Proof, LogError> {
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
            Ok(0) => return Ok(proof),
            Ok(_) => {}
            Err(error) => return Err(broken(path, number, &error.to_string())),
        }
        let whole = line.strip_suffix('\n');
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
        proof.head = hash;
        proof.n_entries += 1;
        if entry.kind == EntryKind::Repaired {
            proof.n_repaired += 1;
        }
        if query.asks_for(&entry) {
            proof.total.add(&entry);
            proof
                .by_class
                .entry(entry.class.name())
                .or_default()
                .add(&entry);
            proof
                .by_provider
                .entry(entry.provider.clone())
                .or_default()
                .add(&entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;
    use crate::egress::{Egress, Keeping, Privacy, ProviderPermit, Purpose};

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
        assert_eq!(proof_of(lines[0]).unwrap().n_entries, 1);
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
