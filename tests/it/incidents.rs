//! Incidents of other programs: cleaners that destroyed data, were misled, or were caught just before. Each
//! test is named after the incidents that it replays, and its comment names the safety rule that prevents
//! them here; `tests/without-each-rule` disables each of these rules and sees the test fail.
//!
//! These incidents have no test, because orphand has no code that could fail like that:
//! - CVE-2000-0816 (tmpwatch), names passed to a shell: orphand never starts a program with the name of a
//!   temp.
//! - CVE-2022-21658 (std), RUSTSEC of `remove_dir_all`, dulwich#2336, systemd#32674: directories deleted with
//!   all their content, or under a writer; no call here does that.
//! - uutils 2026: a class of errors, most of which lints forbid here.
//! - opencodex#2084, #2159, a temp older than the boot: a time before the boot cannot be expressed.
//! - pg_auto_failover#993, dot-agent-deck#461: the scope and the ages of their own directories.
//! - notify#434, watchman#525, owncloud#6119: lost events destroy nothing here; see
//!   `watch::lost_events_are_found_by_a_scan`.
//! - Leaks, in which nothing was destroyed: `sweep::` and `watch::` replay the largest.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::time::Duration;

use orphand::core::event::Event;
use orphand::core::judge::{LeaseCoverage, Reason, Verdict};
use orphand::core::observation::{Fingerprint, Kind, UseState as Held};
use orphand::core::policy::Open;
use orphand::core::time::{ClockJumpDetector, Mono, Now, Wall};
use orphand::core::tracker::{Look, Next, Origin, Tracked};
use orphand::engine::{DirContext, Pass};
use orphand::evidence::{self, UseChecker};
use orphand::reap::{Outcome, Reaper, Step};
use orphand::sys::clock;

use crate::attacks;
use crate::fixture::*;
use crate::holders::{HoldKind, Holding};
use crate::places::Mounted;
use crate::sandbox::{self, NOBODY, Sandbox, dead_pid, is_root, live_pid};

const SHORT: [&str; 2] = ["--grace", "100ms"];
const OLD_ENOUGH: Duration = Duration::from_millis(150);

#[track_caller]
fn kept(fixture: &Fixture, want: Reason) {
    match fixture.judge(TEMP) {
        Event::Kept { reason, .. } => assert_eq!(reason, want),
        event => panic!("{event:?}"),
    }
    fixture.assert_only_at(TEMP_CONTENT, &fixture.temp, "");
}

// --- Holders

/// Rule: the lease. ownCloud's cleaner decided by age while `lsof` showed the upload open. pi-lens waited for
/// an error that POSIX never returns. DuckDB's second instance deleted the spill files of the first. JVMs and
/// omnigent took a process of another pid namespace for a dead one. dot-agent-deck took the end of one
/// process for the end of the last user of its files.
#[test]
fn owncloud_36187_pi_lens_2686_duckdb_24758_jdk_8286030_omnigent_7495_dot_agent_deck_472_open_all_the_time()
 {
    in_own_process(ALL_USERS, || {
        let fixture = Fixture::new();
        let holding = Holding::new(HoldKind::Write, &fixture.temp);
        kept(&fixture, Reason::InUse);
        drop(holding);
        let fixture = Fixture::new();
        let name = format!("{TARGET}.{}.1.tmp", dead_pid());
        let temp = fixture.dir.join(&name);
        fs::rename(&fixture.temp, &temp).unwrap();
        let holding = Holding::new(HoldKind::Read, &temp);
        let event = fixture.judge(&name);
        let in_use = matches!(
            event,
            Event::Kept {
                reason: Reason::InUse,
                ..
            }
        );
        assert!(
            in_use,
            "its writer has ended, but another process has it open: {event:?}"
        );
        drop(holding);
        if is_root() {
            let holding = Holding::within(HoldKind::Write, &temp, |command| {
                // SAFETY: between fork and exec only system calls are made.
                unsafe { command.pre_exec(unshare_pids) };
            });
            let event = fixture.judge(&name);
            let in_use = matches!(
                event,
                Event::Kept {
                    reason: Reason::InUse,
                    ..
                }
            );
            assert!(in_use, "of another namespace: {event:?}");
            drop(holding);
        }
    });
}

/// Rule: the gate for locks. systemd removed a lock file after ten days although its program had it open and
/// locked; then two processes held "the" lock. dycov proposed that the lock decides, not the age.
#[test]
fn systemd_30760_dycov_371_a_file_that_is_locked() {
    in_own_process(ALL_USERS, || {
        let fixture = Fixture::new();
        fs::write(&fixture.temp, "").unwrap();
        let _holding = Holding::new(HoldKind::Flock, &fixture.temp);
        match fixture.judge(TEMP) {
            Event::Kept { reason, .. } => assert_eq!(reason, Reason::Locked),
            event => panic!("{event:?}"),
        }
        assert!(fixture.temp.exists());
    });
}

/// Rule: no answer means keep. Where `fuser` was missing or failed, tmpwatch took every file for unused.
/// Kubernetes read a missing directory as "no volumes".
#[test]
fn tmpwatch_without_fuser_kubernetes_27651_no_answer() {
    in_own_process(ALL_USERS, || {
        refuse_leases();
        kept(&Fixture::new(), Reason::CannotTell);
    });
}

/// Rule: a process scan proves nothing unless it can see all processes. KiroCrew removed its sweep again for
/// that reason: `/proc` may hide processes without an error.
#[test]
fn kirocrew_6268_a_proc_that_shows_a_part() {
    in_own_process(&[RunAs::OwnPidNamespace], || {
        assert!(!evidence::scan_processes(&[], LeaseCoverage::OpensOnly).complete);
    });
}

/// Rule: a holder is identified by device and inode. `lsof` printed `/private/var`, `find` printed `/var`,
/// and every directory in use was taken for unused.
#[test]
fn cc_reaper_18_held_by_another_path() {
    in_own_process(ALL_USERS, || {
        let fixture = Fixture::new();
        symlink(&fixture.dir, fixture.outside.join("way")).unwrap();
        let holding = Holding::new(HoldKind::Write, &fixture.outside.join("way").join(TEMP));
        match fixture.judge(TEMP) {
            Event::Kept { holders, .. } => {
                let pids: Vec<u32> = holders.iter().map(|holder| holder.pid).collect();
                assert_eq!(pids, [holding.pid]);
            }
            event => panic!("{event:?}"),
        }
    });
}

// --- Types of files

/// Rule: exactly one link. A file of another user was reached through a hard link in a shared directory.
#[test]
fn cve_2017_18078_a_hard_link() {
    in_own_process(ALL_USERS, || {
        let fixture = Fixture::new();
        let elsewhere = fixture.outside.join("passwd");
        fs::hard_link(&fixture.temp, &elsewhere).unwrap();
        match fixture.judge(TEMP) {
            Event::Kept { reason, .. } => assert_eq!(reason, Reason::HardLinked),
            event => panic!("{event:?}"),
        }
        assert!(fixture.temp.exists() && elsewhere.exists());
    });
}

/// Rule: check the type first, and never let `open` block. The cleaner hung forever on a FIFO.
#[test]
fn systemd_30690_a_fifo() {
    in_own_process(ALL_USERS, || {
        let (send, outcome) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let fixture = Fixture::new();
            let (temp, other) = (fixture.temp.clone(), fixture.outside.join("fifo"));
            let at_step = AtStep::new(Step::Open, move || {
                sandbox::fifo(&other);
                fs::rename(&other, &temp).unwrap();
            });
            let outcome = format!("{:?}", fixture.reap(at_step.hook));
            drop(fixture);
            let _ = send.send(outcome);
        });
        let outcome = outcome.recv_timeout(Duration::from_secs(20));
        assert_eq!(outcome.as_deref(), Ok("Kept(Changed)"));
    });
}

/// Rule: only regular files are temps. Live sockets of X11 and screen were removed by age, as were quota
/// files and `lost+found`. Prometheus and raft have directories with such names. TinyNvidiaUpdateChecker took
/// a user's folder for temporary files, with 500 GB in it.
#[test]
fn systemd_35182_prometheus_8180_tinynvidiaupdatechecker_289_sockets_and_directories() {
    in_own_process(ALL_USERS, || {
        let fixture = Fixture::new();
        fs::remove_file(&fixture.temp).unwrap();
        // Created with mknod(2): bind(2) accepts no long path.
        let (at, socket) = (rustix::fs::CWD, rustix::fs::FileType::Socket);
        rustix::fs::mknodat(at, &fixture.temp, socket, rustix::fs::Mode::RWXU, 0).unwrap();
        fs::create_dir(fixture.dir.join("01H8.tmp")).unwrap();
        for name in [TEMP, "01H8.tmp"] {
            let mut due = fixture.pass_items(name);
            let events = fixture.pass(&engine(None), &mut Default::default(), &mut due);
            assert!(
                events.is_empty() && due[0].temp.is_none(),
                "{name}: {events:?}"
            );
            assert!(fixture.dir.join(name).exists());
        }
    });
}

/// Rule: the proof must be known to hold on this file system. Two hosts with one NFS home each judged the
/// other's processes.
#[test]
fn agmsg_938_processes_of_another_host() {
    in_own_process(&[RunAs::OwnMounts], || {
        let base = tempfile::tempdir().unwrap();
        let _mounted = Mounted::new("ramfs", base.path(), "ramfs", 0, "");
        let home = tempfile::TempDir::new_in(base.path()).unwrap();
        kept(&Fixture::within(home), Reason::NetworkFs);
    });
}

// --- Paths

/// Rule: no symlink below the root. The parent directory was replaced while the cleaner walked the path.
#[test]
fn cve_2018_6954_cve_2017_1002102_bleachbit_385_a_symlink_below_the_root() {
    in_own_process(ALL_USERS, || {
        let fixture = Fixture::new();
        let elsewhere = fixture.outside.join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        fs::rename(&fixture.dir, elsewhere.join(SUBDIR)).unwrap();
        symlink("../outside/elsewhere", fixture.root.path.join("way")).unwrap();
        let below = Path::new("way").join(SUBDIR);
        let dir_context = DirContext {
            root: &fixture.root,
            id: None,
            below: &below,
        };
        let (engine, use_checker, mut clocks) = (
            engine(None),
            UseChecker::new(),
            ClockJumpDetector::default(),
        );
        let mut due = fixture.pass_items(TEMP);
        let mut events = Vec::new();
        // Until the temp is dropped or removed.
        while let Some(temp) = &due[0].temp {
            std::thread::sleep(temp.due().since(clock::mono()));
            Pass::new(&engine, dir_context, &use_checker, &mut |event| {
                events.push(event)
            })
            .run(&mut clocks, &mut due);
        }
        assert!(events.is_empty(), "{events:?}");
        fixture.assert_only_at(TEMP_CONTENT, &elsewhere.join(SUBDIR).join(TEMP), "");
    });
}

/// Rule: on the path to the root, only symlinks of root or of our user are followed. opentmpfiles followed
/// those of any user who owned a directory on the path.
#[test]
fn cve_2017_18925_a_symlink_above_the_root() {
    if !is_root() {
        return eprintln!("skipped: changing the user needs root");
    }
    let sandbox = Sandbox::new()
        .file("a", "whole and theirs")
        .file("a.tmp", "not theirs");
    let (folder, link) = (sandbox.base().join("way"), sandbox.base().join("link"));
    fs::create_dir(&folder).unwrap();
    symlink(sandbox.base(), folder.join("theirs")).unwrap();
    std::os::unix::fs::lchown(folder.join("theirs"), Some(NOBODY), Some(NOBODY)).unwrap();
    symlink(sandbox.base(), &link).unwrap();
    sandbox.age(OLD_ENOUGH);
    let sweep = |root: &str| sandbox.run(["sweep", "--yes", "--json", "--grace", "100ms", root]);
    sweep("way/theirs/root").exit(1).stderr_has("way/theirs");
    assert_eq!(sandbox.content("a.tmp"), "not theirs");
    // A symlink of our own user is followed.
    assert_eq!(sweep("link/root").exit(0).events().sums(), [1, 0, 0, 0]);
}

/// Rule: no other mount below the root. Files of other owners were lost on volumes and on an sshfs mount
/// below a cleaned directory.
#[test]
fn kubernetes_7317_systemd_12692_another_mount_below_the_root() {
    in_own_process(&[RunAs::OwnMounts], || {
        let fixture = Fixture::new();
        let other = fixture.dir.join("volume");
        fs::create_dir(&other).unwrap();
        let _mounted = Mounted::new("tmpfs", &other, "tmpfs", 0, "");
        fs::write(other.join(TARGET), TARGET_CONTENT).unwrap();
        fs::write(other.join(TEMP), b"of the volume").unwrap();
        let events = fixture.sweep();
        assert!(
            matches!(events.as_slice(), [Event::Reaped(_)]),
            "{events:?}"
        );
        fixture.assert_only_at(b"of the volume", &other.join(TEMP), "");
    });
}

/// Rule: the walk keeps a list, not a stack. With one process, or one frame and one descriptor, for each
/// level, 6,000 levels crashed tmpwatch and systemd-tmpfiles.
#[test]
fn cve_2000_0829_cve_2021_3997_a_deep_tree() {
    let sandbox = Sandbox::ordinary();
    attacks::deep(&sandbox, 6_000, &[1_500]);
    std::thread::sleep(OLD_ENOUGH);
    let ran = sandbox.sweep(["-r", "--grace", "100ms"]).exit(3);
    let [reaped, ..] = ran.events().sums();
    attacks::remove_deep(&sandbox);
    assert_eq!(reaped, 1, "{}", ran.stderr);
}

/// Rule: a quarantine of another user is not used. tmpreaper's own rename could be made to put a file into
/// `/etc/cron.d`.
#[test]
fn cve_2019_3461_a_quarantine_of_another_user() {
    if !is_root() {
        return eprintln!("skipped: changing the user needs root");
    }
    let sandbox = Sandbox::new().dir(".orphand").file("sole.tmp", "precious");
    let quarantine = sandbox.path(".orphand");
    fs::set_permissions(&quarantine, fs::Permissions::from_mode(0o700)).unwrap();
    std::os::unix::fs::lchown(&quarantine, Some(NOBODY), Some(NOBODY)).unwrap();
    sandbox.age(OLD_ENOUGH);
    let events = sandbox.sweep(SHORT).exit(0).events();
    assert_eq!(events.about("sole.tmp"), ["kept no-quarantine"]);
}

/// Rule: broad roots are refused. `tmpfiles --purge` deleted `/home`, other cleaners a user's folder. In a
/// `/tmp` that all users share, another user can take a name that was removed.
#[test]
fn systemd_33349_hellzerg_optimizer_63_tmpreaper_vhn_295582_too_much_at_once() {
    let sandbox = Sandbox::new();
    for root in ["/", "/home", "/tmp", "{base}/home"] {
        // If the check failed, this would still remove nothing: no file has such a name.
        let none = "no-such-temp-of-orphands-tests.*";
        let ran = sandbox.run(["sweep", "--yes", "--json", "--name", none, root]);
        ran.exit(2)
            .stderr_has("--allow-broad-root")
            .prints_nothing();
    }
}

/// Rule: without `-r`, nothing below the root is read. A walk over the whole tree took minutes.
#[test]
fn mamba_103_the_whole_tree() {
    let sandbox = Sandbox::new().file("below/a.4194304.tmp", "");
    sandbox.age(OLD_ENOUGH);
    assert_eq!(sandbox.sweep(SHORT).exit(0).events().sums(), [0, 0, 0, 0]);
    assert!(sandbox.has("below/a.4194304.tmp"));
}

// --- Identity

/// Rule: the claimed file is compared with the judged one. A decoy is judged, then the victim's new file
/// takes its name and is removed. tmpreaper documented "there is no known fix", and systemd-tmpfiles still
/// has the race when `unlinkat` is late.
#[test]
fn razor_2002_tmpreaper_systemd_tmpfiles_262_another_file_by_the_same_name() {
    in_own_process(ALL_USERS, || {
        let fixture = Fixture::new();
        let (temp, other) = (fixture.temp.clone(), fixture.dir.join("other"));
        let at_step = AtStep::new(Step::Claim, move || {
            fs::write(&other, "of the victim").unwrap();
            fs::rename(&other, &temp).unwrap();
        });
        let outcome = fixture.reap(at_step.hook);
        fixture.assert_only_at(b"of the victim", &fixture.temp, &format!("{outcome:?}"));
    });
}

/// Rule: a process that waits for our lease is noticed, and the file gets its name back before the lease is
/// released. A fixed name is used again, and its file is truncated and rewritten: containerd's `<path>.tmp`.
#[test]
fn containerd_atomicfile_the_same_file_once_more() {
    in_own_process(ALL_USERS, || {
        let fixture = Fixture::new();
        let (temp, ino) = (
            fixture.temp.clone(),
            fs::metadata(&fixture.temp).unwrap().ino(),
        );
        let at_step = AtStep::new(Step::Claim, move || {
            let opener = std::thread::spawn(move || std::mem::forget(File::open(temp)));
            wait_until("the opener waits", || {
                opener.is_finished() || waits_for_lease(ino)
            });
        });
        let outcome = fixture.reap(at_step.hook.clone());
        let put_back = matches!(outcome, Outcome::Kept(Reason::InUse));
        assert!(put_back, "{outcome:?}");
        assert_eq!(
            at_step.steps().last(),
            Some(&Step::ProveAgain),
            "{outcome:?}"
        );
        fixture.assert_only_at(TEMP_CONTENT, &fixture.temp, "");
    });
}

/// Rule: only names that the rule lists. A prefix also matched a file under version control, temps of other
/// programs, similar names with digits, and live sessions.
#[test]
fn opencode_swarm_2293_neko_2580_exarchos_1697_openclaw_45255_systemd_181_names_like_it() {
    let names = [
        ".tmp.user-data",
        "cache.tmp.1234",
        "state.json.tmp.bak",
        "sessions.json",
        "aquota.user",
        "a.swap",
        "a.4194304.tmp~",
        "a.TMP",
    ];
    let sandbox = Sandbox::new();
    for name in names {
        sandbox.write(name, "data");
    }
    sandbox.age(OLD_ENOUGH);
    assert_eq!(sandbox.sweep(SHORT).exit(0).events().sums(), [0, 0, 0, 0]);
    assert_eq!(sandbox.listing().len(), names.len());
}

/// Rule: files that are prepared for later, or resumed, are ignored. etcd's next log segments may exist for
/// days, syncthing's transfers for a day.
#[test]
fn etcd_file_pipeline_syncthing_resumed_transfers() {
    let names = ["0.tmp", "1.tmp", ".syncthing.film.mkv.tmp", ".tmp"];
    let sandbox = Sandbox::new();
    for name in names {
        sandbox.write(name, "data");
    }
    sandbox.age(OLD_ENOUGH);
    assert_eq!(sandbox.sweep(SHORT).exit(0).events().sums(), [0, 0, 0, 0]);
    assert_eq!(sandbox.listing().len(), names.len());
}

// --- Ages

/// Rule: both looks and the grace. Sweeps without a minimum age ran beside writers and removed their
/// unfinished files.
#[test]
fn rustrak_273_express_asset_57_jgit_246_beside_a_writer() {
    let sandbox = Sandbox::new()
        .file("a", "whole, to the last byte of it")
        .file("a.4194304.tmp", "being written");
    let events = sandbox.sweep(["--grace", "1h"]).exit(0).events();
    assert_eq!(events.about("a.4194304.tmp"), ["kept young"]);
    assert_eq!(sandbox.content("a.4194304.tmp"), "being written");
}

/// Rule: the newest of all dates counts. rsync and tar give a temp the date of its source before they rename
/// it.
#[test]
fn rsync_finish_transfer_cpython_81831_an_old_date_on_a_young_file() {
    let sandbox = Sandbox::new()
        .file("a", "whole, to the last byte of it")
        .file("a.4194304.tmp", "of last year");
    let file = File::options()
        .write(true)
        .open(sandbox.path("a.4194304.tmp"))
        .unwrap();
    let last_year = std::time::SystemTime::now() - Duration::from_secs(365 * 86_400);
    file.set_modified(last_year).unwrap();
    drop(file);
    let events = sandbox.sweep(["--grace", "1m"]).exit(0).events();
    assert_eq!(events.about("a.4194304.tmp"), ["kept young"]);
}

/// Rule: no credit from before a clock jump. The clock was stepped, and fresh files looked days old.
#[test]
fn systemd_4679_lorax_24_ccache_512_a_clock_that_was_set() {
    const GRACE: Duration = Duration::from_secs(300);
    let at = |seconds: u64| Mono(seconds * 1_000_000_000);
    let fingerprint = Fingerprint {
        dev: 1,
        ino: 1,
        kind: Kind::File,
        size: 1,
        mtime: Wall {
            sec: 1_000,
            nsec: 0,
        },
        ctime: Wall {
            sec: 1_000,
            nsec: 0,
        },
        btime: None,
        links: 1,
        uid: 0,
    };
    let mut temp = Tracked::found(at(10_000), Origin::Found);
    // Closed three seconds ago, and the clock was set an hour forward two seconds ago.
    let now = |mono: u64| Now {
        mono: at(mono),
        wall: Wall {
            sec: 4_603 + mono as i64 - 10_000,
            nsec: 0,
        },
    };
    let look = |mono: u64| Look {
        began: now(mono),
        ended: now(mono),
        last_jump: Some(at(9_998)),
        fingerprint,
        lag: Duration::ZERO,
        use_state: Held::Unused,
    };
    let first = temp.look(&look(10_000), GRACE, Open::Keep);
    assert_eq!(first, Next::LookAt(at(9_998).after(GRACE)));
}

/// Rule: after 24 hours without use, a pid no longer counts. In a container the pid is the same after each
/// restart, so the lock of a dead process looked alive forever.
#[test]
fn openswarm_456_dot_agent_deck_727_a_pid_that_always_lives() {
    let judged = |unused| {
        let fixture = Fixture::new();
        let uuid = "4f1c2d3e-5a6b-4c7d-8e9f-0a1b2c3d4e5f";
        let name = format!("{TARGET}.{}.{uuid}.tmp", live_pid());
        let mut candidate = fixture.candidate(Verdict::Reap);
        fs::rename(&fixture.temp, fixture.dir.join(&name)).unwrap();
        candidate.temp_info.name = name.clone().into();
        candidate.temp_info.parsed = fixture.root.policy.names.parse(name.as_ref());
        candidate.temp_info.expected = None;
        candidate.temp_info.quiet = candidate.temp_info.quiet.max(unused);
        candidate.temp_info.unused = unused;
        fixture.reap_candidate(&Reaper::new(), candidate)
    };
    in_own_process(ALL_USERS, || {
        let young = judged(Duration::from_secs(86_399));
        assert!(
            matches!(young, Outcome::Kept(Reason::WriterAlive)),
            "{young:?}"
        );
        let old = judged(Duration::from_secs(86_400));
        assert!(matches!(old, Outcome::Reaped { .. }), "{old:?}");
    });
}

/// Rule: a temp is kept while its writer is running. lean-ctx decided by age even where the pid was alive.
#[test]
fn lean_ctx_958_opencodex_499_its_writer_lives() {
    let sandbox = Sandbox::new();
    let name = format!("a.{}.1.tmp", live_pid());
    let sandbox = sandbox
        .file("a", "whole, to the last byte of it")
        .file(&name, "x");
    sandbox.age(OLD_ENOUGH);
    let events = sandbox.sweep(SHORT).exit(0).events();
    assert_eq!(events.about(&name), ["kept writer-alive"]);
}

// --- Only copies

/// Rule: the only copy is moved, not deleted. After a failed swap both copies had such names on purpose;
/// users asked for their uploads back.
#[test]
fn streamlit_15934_trvl_513_go_fastdfs_414_the_only_copy() {
    in_own_process(ALL_USERS, || {
        let fixture = Fixture::new().with_sole_copy();
        let event = fixture.judge(TEMP);
        assert!(matches!(event, Event::Quarantined { .. }), "{event:?}");
        assert_eq!(fixture.copies(TEMP_CONTENT).len(), 1);
    });
}

/// Rule: an empty target is no copy. `sessions.json` had 0 bytes, and its temps were all that was left.
#[test]
fn openclaw_77783_a_target_of_zero_bytes() {
    in_own_process(ALL_USERS, || {
        let fixture = Fixture::new();
        fs::write(&fixture.target, "").unwrap();
        // The target is the older one: a newer one with less data would not count in any case.
        std::thread::sleep(Duration::from_millis(20));
        fs::write(&fixture.temp, TEMP_CONTENT).unwrap();
        let event = fixture.judge(TEMP);
        assert!(matches!(event, Event::Quarantined { .. }), "{event:?}");
        assert_eq!(fixture.copies(TEMP_CONTENT).len(), 1);
    });
}

// --- Reports

/// Rule: a dry run changes nothing. In one report "--dry-run wasn't dry at all".
#[test]
fn systemd_33383_a_dry_run_that_was_not_dry() {
    let sandbox = Sandbox::new()
        .file("a", "whole, to the last byte of it")
        .file("a.tmp", "x")
        .file("sole.tmp", "x");
    sandbox.age(OLD_ENOUGH);
    let before = sandbox.snapshot();
    let ran = sandbox.sweep(SHORT.iter().chain(&["-n"])).exit(0);
    assert_eq!(ran.events().sums()[..2], [1, 1]);
    assert_eq!(sandbox.snapshot(), before);
}

/// Rule: a dry run checks leases and locks too. systemd-tmpfiles 262 tries no lock in a dry run, and
/// BleachBit's preview differed from its run.
#[test]
fn systemd_tmpfiles_262_bleachbit_1889_a_dry_run_says_what_a_run_does() {
    let sandbox = Sandbox::new()
        .file("a", "whole, to the last byte of it")
        .file("a.4194304.tmp", "x")
        .file("b.4194304.tmp", "");
    let mut shell = sandbox.shell();
    assert!(shell.run("exec 7<a.4194304.tmp; flock 7"));
    sandbox.age(OLD_ENOUGH);
    let dry = sandbox.sweep(SHORT.iter().chain(&["-n"])).exit(0).events();
    let run = sandbox.sweep(SHORT).exit(0).events();
    for events in [dry, run] {
        assert_eq!(events.names("reaped"), ["b.4194304.tmp"]);
        assert_eq!(events.about("a.4194304.tmp"), ["kept locked"]);
    }
}

/// Rule: the intent and its reason are recorded before an action. A file was missing, and only its age could
/// show that the cleaner had not removed it.
#[test]
fn mibeenvr_803_who_removed_it() {
    let sandbox = Sandbox::new().file("a.4194304.tmp", "");
    let ino = fs::metadata(sandbox.path("a.4194304.tmp")).unwrap().ino();
    sandbox.age(OLD_ENOUGH);
    sandbox.sweep(SHORT).exit(0);
    let journal = sandbox.base().join("state/orphand/journal.jsonl");
    let journal = fs::read_to_string(journal).unwrap();
    let lines = journal
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    let lines: Vec<serde_json::Value> = lines.collect();
    let kinds: Vec<_> = lines.iter().map(|line| line["journal"].clone()).collect();
    assert_eq!(kinds, ["intent", "outcome"], "{journal}");
    let intent = &lines[0];
    assert!(
        intent["path"]
            .as_str()
            .unwrap()
            .ends_with("/root/a.4194304.tmp"),
        "{journal}"
    );
    assert_eq!(
        (intent["ino"].as_u64(), intent["grace_ms"].as_u64()),
        (Some(ino), Some(100))
    );
}

/// Rule: an unknown key is an error. An unknown age setting was ignored, and everything was removed.
#[test]
fn systemd_1633_a_setting_that_is_left_out() {
    let sandbox = Sandbox::new().file("a.4194304.tmp", "");
    fs::create_dir(sandbox.base().join("config/orphand")).unwrap();
    let config = sandbox.base().join("config/orphand/config.toml");
    fs::write(config, "[defaults]\ngrase = \"10d\"\n").unwrap();
    sandbox.age(OLD_ENOUGH);
    sandbox.sweep(SHORT).exit(78).stderr_has("grase");
    assert!(sandbox.has("a.4194304.tmp"));
}

/// Rule: names are escaped in human output. The name of a file moved the cursor of a terminal that listed it.
#[test]
fn kirocrew_4957_names_that_write_to_the_terminal() {
    let sandbox = Sandbox::new().file("\u{1b}[2J\u{1b}]0;x\u{7}.tmp", "");
    sandbox.age(OLD_ENOUGH);
    let ran = sandbox
        .run(["sweep", "--yes", "--grace", "100ms", "root"])
        .exit(0);
    let output = ran.stdout.clone() + &ran.stderr;
    assert!(
        output.contains("[2J") && !output.contains('\u{1b}'),
        "{output:?}"
    );
}

/// Rule: at most one orphand works on a root. A second sccache on one folder would delete the first one's
/// live temps at its start; tmpreaper stops after 55 seconds so that no two runs overlap.
#[test]
fn sccache_lru_disk_cache_init_two_at_once() {
    let sandbox = Sandbox::new().file("a.4194304.tmp", "");
    let watching = sandbox.watch(["--grace", "1h"]).ready();
    sandbox.sweep(SHORT).exit(75);
    assert!(sandbox.has("a.4194304.tmp"));
    watching.stop().exit(0);
}

/// Refuses every lease to this process from now on, as a file system without leases does.
pub(crate) fn refuse_leases() {
    // seccomp(2): load the number of the call; for fcntl(2), load its second argument; for F_SETLEASE, return
    // EINVAL.
    let instruction = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let (load, equal, answer) = (0x20, 0x15, 0x06);
    let filter = [
        instruction(load, 0, 0, 0),
        instruction(equal, 0, 3, libc::SYS_fcntl as u32),
        instruction(load, 0, 0, 24),
        instruction(equal, 0, 1, libc::F_SETLEASE as u32),
        instruction(answer, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EINVAL as u32),
        instruction(answer, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: the program outlives the calls, and this test has its own process.
    unsafe {
        check_syscall(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)).unwrap();
        let (mode, program) = (libc::SECCOMP_MODE_FILTER, &raw const program);
        check_syscall(libc::prctl(libc::PR_SET_SECCOMP, mode, program)).unwrap();
    }
}
