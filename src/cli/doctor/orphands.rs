//! Other orphands on this machine.

use super::check::Check;

/// `watchers`: the processes that watch, as far as they can be seen.
pub(super) fn judge(watchers: &[u32]) -> Check {
    let check = "orphands";
    match watchers {
        [] => Check::ok(check, "none watches, as far as can be seen"),
        [pid] => Check::ok(check, format!("one watches: pid {pid}")),
        pids => {
            let list: Vec<String> = pids.iter().map(u32::to_string).collect();
            let (number, list) = (pids.len(), list.join(" "));
            Check::warning(
                check,
                format!(
                    "{number} watch: pids {list}. Of one user only one works on a directory; those \
                     of two users do not see each other's locks and do the same work twice"
                ),
                format!(
                    "look what each is for: ps -o pid,user,args -p {}\nend those too many: kill PID",
                    list.replace(' ', ",")
                ),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::State;
    use super::*;

    #[test]
    fn how_many_there_are() {
        for (pids, state, words) in [
            (&[][..], State::Ok, "none"),
            (&[7], State::Ok, "pid 7"),
            (&[7, 9], State::Warning, "2 watch: pids 7 9"),
        ] {
            let check = judge(pids);
            assert_eq!(check.state, state);
            assert!(check.what.contains(words), "{check:?}");
        }
        let cure = judge(&[7, 9]).cure.unwrap();
        assert!(cure.contains("-p 7,9"), "{cure}");
    }
}
