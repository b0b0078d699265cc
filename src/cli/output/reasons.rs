//! The reasons why temps are removed, moved or kept, for people.

use std::path::Path;
use std::time::Duration;

use orphand::core::event::{Details, Disposed, Subject};
use orphand::core::judge::{Reason, Verdict};
use orphand::core::observation::Holder;
use orphand::core::own_names;
use orphand::core::process::Via;
use orphand::engine::Examined;

use super::shell::{Suggestion, purge_command};
use super::text;

/// The largest number of holders that a line names.
const MAX_HOLDERS: usize = 3;

/// Returns the reason for a verdict, in words. It is not known whether the temp will be looked at again.
pub(crate) fn verdict_reason(examined: &Examined, reason: Reason) -> String {
    let (text, hint) = reason_and_hint(examined, &[], reason);
    text + &hint
}

/// Returns the reason for a verdict, in words, and the hint at what would change the verdict. Only a temp that is kept
/// has a hint. `holders` use the temp, as far as they are known.
pub(crate) fn reason_and_hint(
    examined: &Examined,
    holders: &[Holder],
    reason: Reason,
) -> (String, String) {
    let text = keep_reason(reason, &names_of(holders), &examined.details);
    let hint = match examined.verdict {
        Verdict::Keep(_) => keep_hint(&examined.path, None, reason, &examined.details),
        Verdict::Reap | Verdict::Quarantine(_) => String::new(),
    };
    (text, hint)
}

/// Returns the reason why a temp is kept, with its holders and the time of the next look.
pub(super) fn kept_text(
    subject: &Subject,
    reason: Reason,
    holders: &[Holder],
    retry: Option<Duration>,
    details: &Details,
) -> String {
    let line = keep_reason(reason, &names_of(holders), details) + &next_look(reason, retry);
    match own_names::is_claim(&subject.path) {
        // Another orphand process may be working on this claim, and no option applies to it, so there is no hint.
        true => line,
        false => line + &keep_hint(&subject.path, Some(&subject.root), reason, details),
    }
}

/// Returns the first holders: `node[4711], bash[4712]`.
fn names_of(holders: &[Holder]) -> String {
    let holders = holders.iter().take(MAX_HOLDERS);
    let names = holders.map(|one| text::process(&one.name, one.pid));
    names.collect::<Vec<_>>().join(", ")
}

/// Returns the reason why a temp was removed.
pub(super) fn removal_reason(disposed: &Disposed) -> String {
    let quiet = text::span(disposed.quiet);
    if let Some(reason) = disposed.allowed {
        return allowed_reason(reason, Some(disposed));
    }
    match disposed.subject.size.map(|size| size.bytes) {
        _ if disposed.superseded_by.is_some() => {
            format!("unused for {quiet}; later copies are in the quarantine")
        }
        _ if disposed.superseded => format!("unused for {quiet}; later copies supersede it"),
        Some(0) => format!("empty, unused for {quiet}"),
        _ => format!("unused for {quiet}"),
    }
}

/// Returns why a temp would not be removed if a setting of its rule did not allow it.
pub(crate) fn allowed_reason(reason: Reason, disposed: Option<&Disposed>) -> String {
    let holder = disposed.and_then(|disposed| disposed.process.as_ref());
    let holder = holder.filter(|process| process.via == Via::Holder);
    let by = holder.and_then(|one| Some(text::process(one.name.as_deref()?, one.pid)));
    match reason {
        Reason::SoleCopy => {
            let fault = disposed.map(|disposed| format!("{}: ", target_fault(disposed)));
            let fault = fault.unwrap_or_default();
            format!("{fault}it may be the only copy, and sole_copy = \"reap\" allows its removal")
        }
        Reason::CannotTell => {
            "no proof that it is unused, and open = \"reap\" allows its removal".to_owned()
        }
        _ => {
            let by = by.map(|by| format!(" in {by}")).unwrap_or_default();
            format!("open{by}, and open = \"reap\" allows its removal")
        }
    }
}

/// Returns the reason why a temp was moved to the quarantine, and the commands that restore or remove it.
pub(super) fn move_reason(disposed: &Disposed, id: Option<&str>, reason: Option<Reason>) -> String {
    let is_empty = disposed.subject.size.is_some_and(|size| size.bytes == 0);
    let mut line = match reason {
        Some(Reason::SoleCopy) => {
            format!("{}.", sole_copy_reason(&target_fault(disposed), is_empty))
        }
        Some(Reason::InUse) => "a process has it open.".to_owned(),
        Some(_) => "it could not be proven that no process uses it.".to_owned(),
        None => format!("unused for {}.", text::span(disposed.quiet)),
    };
    if let Some(id) = id {
        line.push_str(&format!(
            "  back: {}   for good: {}",
            restore_command(id),
            Suggestion::new("quarantine purge").configured().arg(id)
        ));
    }
    line
}

/// Returns the command that restores a file from the quarantine.
pub(super) fn restore_command(id: &str) -> Suggestion {
    Suggestion::new("restore").configured().arg(id)
}

/// Returns the reason why a temp was moved to the quarantine, in a few words.
pub(super) fn short_move_reason(disposed: &Disposed, reason: Option<Reason>) -> String {
    match reason {
        Some(Reason::SoleCopy) => target_fault(disposed),
        Some(Reason::InUse) => "open".to_owned(),
        Some(_) => "no proof".to_owned(),
        None => format!("unused for {}", text::span(disposed.quiet)),
    }
}

/// Returns why the target of a temp does not count: `there is no "b"`.
fn target_fault(disposed: &Disposed) -> String {
    let Some(target) = &disposed.target else {
        return "its target is unknown".to_owned();
    };
    let target = text::escaped(Path::new(target.file_name().unwrap_or_default()));
    match disposed.target_state.fault() {
        None if disposed.target_state.counts() => {
            "only a learned shape matches its name".to_owned()
        }
        None | Some("is missing") => format!("there is no \"{target}\""),
        Some(fault) => format!("\"{target}\" {fault}"),
    }
}

/// Returns the reason why a temp is not removed, from `fault`, the fault of its target.
fn sole_copy_reason(fault: &str, is_empty: bool) -> String {
    match is_empty {
        true => format!("it is empty and may be a flag: {fault}"),
        false => format!("{fault}: it may be the only copy"),
    }
}

/// Returns when a kept temp is looked at again. The interval stays the same only while no event can report the end of
/// the reason; otherwise it doubles.
fn next_look(reason: Reason, retry: Option<Duration>) -> String {
    let again = retry.map(|retry| match reason.ends_without_event() {
        true => format!("; looked at every {}", text::span(retry)),
        false => format!("; next look in {}", text::span(retry)),
    });
    again.unwrap_or_default()
}

/// Returns the reason why a temp is kept.
fn keep_reason(reason: Reason, by: &str, details: &Details) -> String {
    if let Some(guard) = &details.guard {
        let guard = text::escaped(guard);
        return match (reason, by) {
            (Reason::InUse, "") => format!("the unless_open file \"{guard}\" is open"),
            (Reason::InUse, _) => format!("the unless_open file \"{guard}\" is open in {by}"),
            _ => format!("cannot prove that the unless_open file \"{guard}\" is unused"),
        };
    }
    match reason {
        Reason::Restored => "it was restored and has not changed since".to_owned(),
        Reason::Young => format!(
            "used {} ago; its grace is {}",
            text::span(details.quiet),
            text::span(details.grace)
        ),
        Reason::Changed => "it has just changed".to_owned(),
        Reason::NotRegular => "not a regular file".to_owned(),
        Reason::OtherMount => "on another mount than its directory".to_owned(),
        Reason::Protected if details.is_dataless => {
            "its data is in the cloud, not on this disk".to_owned()
        }
        Reason::Protected => "protected: immutable or append-only".to_owned(),
        Reason::HardLinked => "it has another name (a hard link)".to_owned(),
        Reason::NetworkFs => format!(
            "on this file system ({}) nothing can prove that it is unused",
            text::escaped(Path::new(&*details.file_system))
        ),
        Reason::ForeignOwner => "it belongs to another user".to_owned(),
        Reason::WriterAlive => match (details.writer_pid, &details.writer) {
            (Some(pid), Some(program)) => {
                let program = text::escaped(Path::new(program));
                format!("pid {pid} from its name is running ({program})")
            }
            (Some(pid), None) => format!("pid {pid} from its name is or may be running"),
            (None, _) => "the process whose pid is in its name may be running".to_owned(),
        },
        Reason::Closed => "closed, and --closed settled leaves such temps alone".to_owned(),
        Reason::Locked if by.is_empty() => "locked".to_owned(),
        Reason::Locked => format!("locked by {by}"),
        Reason::InUse if by.is_empty() => "open".to_owned(),
        Reason::InUse => format!("open in {by}"),
        Reason::CannotTell => "cannot prove that no process uses it".to_owned(),
        Reason::SoleCopy => "it may be the only copy".to_owned(),
        Reason::NoQuarantine => {
            "it is to be moved to the quarantine, but none can be created here".to_owned()
        }
        Reason::QuarantineFull => "it is to be moved to the quarantine, which is full".to_owned(),
        Reason::Reserved => {
            "its name is reserved (a lock, a database, a transfer, a backup, the target or a \
             companion of another temp)"
                .to_owned()
        }
    }
}

/// Returns the option or the command that would change that the temp at `path` is kept, after a full stop. `root` is its
/// root, if it is known.
fn keep_hint(path: &Path, root: Option<&Path>, reason: Reason, details: &Details) -> String {
    match reason {
        Reason::NetworkFs => format!(
            ".  to trust it: {} in the configuration file",
            trust_key(&details.file_system)
        ),
        Reason::QuarantineFull => format!(".  to empty it: {}", purge_command(root)),
        // It may be the mode or the owner of `.orphand`, or a right that is lacking in the directory.
        Reason::NoQuarantine => {
            let doctor = Suggestion::new("doctor").configured();
            format!(".  to see the cause: {}", doctor.args(root))
        }
        Reason::SoleCopy => ".  to move such temps: --sole-copy quarantine".to_owned(),
        Reason::Reserved => format!(
            ".  to see the reason: {}",
            Suggestion::new("explain").configured().arg(path)
        ),
        _ => String::new(),
    }
}

/// Returns the line of the configuration file that trusts a file system.
fn trust_key(file_system: &str) -> String {
    format!("network = [{}]", text::quoted(file_system))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject() -> Subject {
        Subject {
            path: "/r/a.tmp".into(),
            root: "/r".into(),
            size: None,
        }
    }

    #[test]
    fn every_reason_has_a_text() {
        for reason in Reason::ALL {
            assert!(
                !kept_text(&subject(), reason, &[], None, &Details::default()).is_empty(),
                "{reason}"
            );
        }
        let details = Details {
            file_system: "nfs".into(),
            writer_pid: Some(24_917),
            writer: Some("bash".to_owned()),
            process: None,
            is_dataless: false,
            quiet: Duration::from_secs(3),
            grace: Duration::from_secs(300),
            guard: None,
        };
        let guarded = Details {
            guard: Some("LOCK".into()),
            ..details.clone()
        };
        let dataless = Details {
            is_dataless: true,
            ..details.clone()
        };
        let holders = [Holder {
            pid: 4711,
            name: "bash".to_owned(),
        }];
        let soon = Some(Duration::from_secs(10));
        #[rustfmt::skip]
        let rows = [
            (Reason::InUse, soon, &details, "open in bash[4711]; looked at every 10 s"),
            (Reason::InUse, soon, &guarded,
                "the unless_open file \"LOCK\" is open in bash[4711]; looked at every 10 s"),
            (Reason::CannotTell, None, &guarded, "cannot prove that the unless_open file \"LOCK\" is unused"),
            (Reason::Young, None, &details, "used 3 s ago; its grace is 5 min"),
            (Reason::WriterAlive, None, &details, "pid 24917 from its name is running (bash)"),
            (Reason::Protected, None, &details, "protected: immutable or append-only"),
            (Reason::Protected, None, &dataless, "its data is in the cloud, not on this disk"),
            (Reason::QuarantineFull, None, &details,
                "it is to be moved to the quarantine, which is full.  to empty it: orphand quarantine purge /r"),
            (Reason::NetworkFs, None, &details,
                "on this file system (nfs) nothing can prove that it is unused.  to trust it: network = [\"nfs\"] in \
                 the configuration file"),
        ];
        for (reason, retry, details, want) in rows {
            assert_eq!(
                kept_text(&subject(), reason, &holders, retry, details),
                want
            );
        }
    }
}
