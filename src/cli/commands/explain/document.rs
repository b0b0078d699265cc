//! The JSON document of `orphand explain`.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

use orphand::core::judge::{GATES, Gate, GateResult};
use orphand::core::observation::Holder;
use orphand::core::time::Wall;
use orphand::engine::Examined;
use orphand::engine::groups::Prediction;
use orphand::store::json::{self, ProcessFields, WirePath, field};
use orphand::sys::clock;
use serde::Serialize;

use super::{Explained, Facts};
use crate::cli::output::learned::LearnedFields;
use crate::cli::output::temp_fields::TempFields;

/// The JSON document.
#[derive(Serialize)]
pub(super) struct ExplainDocument<'a> {
    temps: Vec<ExplainedFields<'a>>,
}

impl ExplainDocument<'_> {
    pub(super) fn new(explained: &[Explained]) -> ExplainDocument<'_> {
        ExplainDocument {
            temps: explained.iter().map(Explained::fields).collect(),
        }
    }
}

/// A file in the document. A file that is not regular has the same fields as a temp.
#[derive(Serialize)]
struct ExplainedFields<'a> {
    #[serde(flatten)]
    temp: TempFields<'a>,
    #[serde(flatten, with = "field::root")]
    root: WirePath<'a>,
    grace_ms: Option<u64>,
    grammar: Option<&'a str>,
    holders: &'a [Holder],
    process: Option<ProcessFields<'a>>,
    matches: bool,
    group: Option<GroupFields>,
    learned: Option<&'a LearnedFields>,
    gates: Vec<GateFields>,
}

/// The copies of the same target that decide whether a temp is needed.
#[derive(Serialize)]
struct GroupFields {
    in_place: usize,
    stored: usize,
    superseded: bool,
    best: Vec<String>,
}

impl From<&Prediction> for GroupFields {
    fn from(group: &Prediction) -> GroupFields {
        let best = group.best.iter().map(|path| path.to_string_lossy());
        GroupFields {
            in_place: group.superseded.len(),
            stored: group.stored,
            superseded: group.superseded.first() == Some(&true),
            best: best.map(Into::into).collect(),
        }
    }
}

#[derive(Serialize)]
struct GateFields {
    gate: &'static str,
    passes: bool,
    reason: Option<&'static str>,
    evidence: String,
}

impl Explained {
    fn fields(&self) -> ExplainedFields<'_> {
        let rule = self.plan.rule(&self.root);
        let root = Some(self.root.path.as_path().into());
        let matches = self.rejection.is_none();
        match &self.facts {
            Facts::Regular(temp) => ExplainedFields {
                temp: TempFields::new(&temp.examined, self.verdict(), rule),
                root,
                grace_ms: Some(json::ms(temp.examined.temp_info.grace)),
                grammar: temp.examined.temp_info.parsed.grammar.as_deref(),
                holders: &temp.holders,
                process: temp.process.as_ref().map(Into::into),
                matches,
                group: temp.group.as_ref().map(GroupFields::from),
                learned: temp.learned.as_ref(),
                gates: GATES
                    .iter()
                    .map(|gate| self.gate(gate, &temp.examined))
                    .collect(),
            },
            Facts::NotRegular(seen) => ExplainedFields {
                temp: TempFields {
                    path: Some(self.path.as_path().into()),
                    bytes: seen.len(),
                    disk_bytes: seen.blocks().saturating_mul(512),
                    quiet_ms: json::ms(clock::wall().since(newest_date(seen))),
                    verdict: self.verdict().into(),
                    target: None,
                    writer_pid: None,
                    writer: None,
                    set: None,
                    set_b64: None,
                    rule: rule.map(Into::into),
                },
                root,
                grace_ms: None,
                grammar: None,
                holders: &[],
                process: None,
                group: None,
                learned: None,
                matches,
                gates: Vec::new(),
            },
        }
    }

    fn gate(&self, gate: &Gate, examined: &Examined) -> GateFields {
        let reason = match gate.check(&examined.evidence, &self.root.policy) {
            GateResult::Pass | GateResult::Allow(_) => None,
            GateResult::Keep(reason) | GateResult::Quarantine(reason) => Some(reason.as_str()),
        };
        GateFields {
            gate: gate.name,
            passes: reason.is_none(),
            reason,
            evidence: gate.describe(&examined.evidence),
        }
    }
}

/// Returns the newest date of a file, in whole seconds.
fn newest_date(seen: &Metadata) -> Wall {
    Wall {
        sec: seen.mtime().max(seen.ctime()),
        nsec: 0,
    }
}
