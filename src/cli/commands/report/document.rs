//! The JSON document of `report`.

use std::borrow::Cow;

use jiff::Timestamp;
use orphand::core::judge::Reason;
use orphand::core::sums::{Outcome, SumKey, TempSum};
use orphand::store::json::{WirePath, field};
use serde::Serialize;

use super::Content;
use super::data::{ProgramKey, ProgramSum};
use crate::cli::commands::status::disk::DiskFields;

#[derive(Serialize)]
pub(super) struct ReportDocument<'a> {
    time: String,
    since: String,
    total: Totals,
    groups: Vec<GroupFields<'a>>,
    timeline: TimelineFields,
    processes: Vec<ProgramFields<'a>>,
    disks: Vec<DiskFields<'a>>,
}

#[derive(Serialize)]
struct Totals {
    temps: u64,
    bytes: u64,
    disk_bytes: u64,
    reaped: u64,
    freed_disk_bytes: u64,
    quarantined: u64,
    quarantined_disk_bytes: u64,
    restored: u64,
    purged: u64,
    purged_disk_bytes: u64,
}

#[derive(Serialize)]
struct GroupFields<'a> {
    #[serde(flatten, with = "field::root")]
    root: WirePath<'a>,
    #[serde(flatten, with = "field::dir")]
    dir: WirePath<'a>,
    shape: Cow<'a, str>,
    #[serde(flatten, with = "field::target")]
    target: WirePath<'a>,
    verdict: &'static str,
    reason: Option<&'static str>,
    temps: u64,
    bytes: u64,
    disk_bytes: u64,
    first: String,
    last: String,
    processes: Vec<NameFields<'a>>,
}

#[derive(Serialize)]
struct NameFields<'a> {
    name: &'a str,
    temps: u64,
}

#[derive(Serialize)]
struct TimelineFields {
    start: String,
    step_ms: u64,
    /// The number of temps in each step.
    temps: Vec<u64>,
}

#[derive(Serialize)]
struct ProgramFields<'a> {
    name: Option<&'a str>,
    #[serde(flatten, with = "field::exe")]
    exe: WirePath<'a>,
    unit: Option<&'a str>,
    temps: u64,
    bytes: u64,
    disk_bytes: u64,
    ends: Vec<EndFields<'a>>,
}

#[derive(Serialize)]
struct EndFields<'a> {
    end: &'a str,
    temps: u64,
}

pub(super) fn document(content: &Content) -> ReportDocument<'_> {
    let data = &content.data;
    let (temps, size) = data.leaks();
    ReportDocument {
        time: time(content.now),
        since: time(content.since),
        total: Totals {
            temps,
            bytes: size.bytes,
            disk_bytes: size.disk_bytes,
            reaped: data.removed.temps,
            freed_disk_bytes: data.removed.size.disk_bytes,
            quarantined: data.moved.temps,
            quarantined_disk_bytes: data.moved.size.disk_bytes,
            restored: data.restored.temps,
            purged: data.purged.temps,
            purged_disk_bytes: data.purged.size.disk_bytes,
        },
        groups: (data.groups.largest_first().into_iter())
            .map(|(key, sum)| group(content, key, sum))
            .collect(),
        timeline: TimelineFields {
            start: time(data.timeline.start),
            step_ms: u64::try_from(data.timeline.step).unwrap_or(0) * 1000,
            temps: data.temps_by_step(),
        },
        processes: (data.programs().into_iter())
            .map(|(key, sum)| program(key, sum))
            .collect(),
        disks: (content.disks.iter())
            .map(|(root, disk)| DiskFields::new(root, *disk))
            .collect(),
    }
}

fn time(at: Timestamp) -> String {
    format!("{at:.3}")
}

fn group<'a>(content: &Content, key: &'a SumKey, sum: &'a TempSum) -> GroupFields<'a> {
    let verdict = match key.outcome {
        Outcome::Judged(verdict) => Some(verdict),
        Outcome::Failed | Outcome::Purged => None,
    };
    let ago = |age| content.now.checked_sub(age).unwrap_or(content.now);
    let name = |(name, temps)| NameFields { name, temps };
    GroupFields {
        root: Some(key.root.as_path().into()),
        dir: Some(key.dir.as_path().into()),
        shape: key.shape.to_string_lossy(),
        target: sum.target().map(|target| target.into()),
        verdict: verdict.map_or("", |verdict| verdict.as_str()),
        reason: verdict.and_then(|verdict| verdict.reason().map(Reason::as_str)),
        temps: sum.temps,
        bytes: sum.size.bytes,
        disk_bytes: sum.size.disk_bytes,
        first: time(ago(sum.oldest)),
        last: time(ago(sum.newest)),
        processes: sum.programs().into_iter().map(name).collect(),
    }
}

fn program<'a>(key: &'a ProgramKey, sum: &'a ProgramSum) -> ProgramFields<'a> {
    let end = |(end, temps): (&'a String, &u64)| EndFields { end, temps: *temps };
    ProgramFields {
        name: key.name.as_deref(),
        exe: key.exe.as_deref().map(Into::into),
        unit: key.unit.as_deref(),
        temps: sum.temps.temps,
        bytes: sum.temps.size.bytes,
        disk_bytes: sum.temps.size.disk_bytes,
        ends: sum.ends.iter().map(end).collect(),
    }
}
