//! How long healthy writes take: `writes` in the summary and in the status, and the warning about long ones.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::contract::decode_base64;
use crate::sandbox::Sandbox;

/// Creates a temp, and renames it after `pause`. Returns the longest time that this can have taken.
fn write_and_rename(sandbox: &Sandbox, temp: &OsStr, target: &str, pause: Duration) -> Duration {
    let began = Instant::now();
    sandbox.write(temp, "content");
    std::thread::sleep(pause);
    fs::rename(sandbox.path(temp), sandbox.path(target)).unwrap();
    began.elapsed()
}

fn status_of_roots(sandbox: &Sandbox) -> Vec<Value> {
    let status = sandbox.run(["status", "--json"]).exit(0).stdout_json();
    status["watchers"][0]["roots"].as_array().unwrap().clone()
}

fn us(writes: &Value, field: &str) -> u128 {
    writes[field].as_u64().unwrap().into()
}

#[test]
fn healthy_writes_are_measured_in_each_root() {
    let sandbox = Sandbox::new()
        .dir("calm")
        .dir("empty")
        .file("calm/old.tmp", "from before the start");
    // A file that is not UTF-8 has the longest write.
    let odd = OsStr::from_bytes(b"calm/\xff.4f1c2d3e-5a6b-4c7d-8e9f-0a1b2c3d4e5f.tmp");
    let args = [
        "--grace",
        "1s",
        "--existing",
        "wait",
        "root/calm",
        "root/empty",
    ];
    let mut watch = sandbox.watch_dirs(args).ready();
    assert!(
        status_of_roots(&sandbox)
            .iter()
            .all(|root| root["writes"].is_null())
    );
    for n in 0..9 {
        let temp = format!("calm/{n}.json.tmp");
        write_and_rename(&sandbox, OsStr::new(&temp), "calm/a.json", Duration::ZERO);
    }
    let pause = Duration::from_millis(300);
    let most = write_and_rename(&sandbox, odd, "calm/odd", pause);
    // Neither of these is a healthy write that was seen from its creation to its rename.
    fs::rename(sandbox.path("calm/old.tmp"), sandbox.path("calm/old")).unwrap();
    sandbox.write("calm/gone.tmp", "removed by its writer");
    fs::remove_file(sandbox.path("calm/gone.tmp")).unwrap();
    watch.wait_for_sentinel_in(&sandbox, "calm");
    let roots = status_of_roots(&sandbox);
    let [calm, empty] = roots.as_slice() else {
        panic!("{roots:#?}")
    };
    let writes = &calm["writes"];
    assert_eq!(writes["count"], 10, "{calm:#}");
    let name = decode_base64(writes["max_name_b64"].as_str().unwrap());
    assert_eq!(name, &odd.as_bytes()[b"calm/".len()..]);
    assert_eq!(us(writes, "p99_us"), us(writes, "max_us"));
    assert!(us(writes, "p50_us") <= us(writes, "max_us"));
    // The callback may receive the event of the creation a moment late.
    let least = pause - pause / 3;
    let measured = least.as_micros()..=(most + pause).as_micros();
    assert!(
        measured.contains(&us(writes, "max_us")),
        "{writes}, not {measured:?}"
    );
    assert!(
        empty["writes"].is_null() && empty["slow_write"].is_null(),
        "{empty:#}"
    );
    sandbox
        .run(["status"])
        .exit(0)
        .stdout_has("10 healthy writes · half within ");
    let stopped = watch.stop().exit(0);
    assert_eq!(stopped.events.summary()["writes"], *writes);
    // A sweep measures nothing.
    let swept = sandbox.sweep(["--grace", "1s"]).exit(0);
    assert_eq!(swept.events().summary()["writes"], Value::Null);
}

#[test]
fn a_write_of_more_than_half_the_grace_is_reported_once_with_a_longer_grace() {
    let sandbox = Sandbox::new();
    let mut watch = sandbox.watch(["--grace", "6s"]).ready();
    for (n, pause) in [100, 3_300, 3_400]
        .map(Duration::from_millis)
        .into_iter()
        .enumerate()
    {
        let temp = format!("{n}.json.tmp");
        write_and_rename(&sandbox, OsStr::new(&temp), &format!("{n}.json"), pause);
    }
    watch.wait_for_sentinel(&sandbox);
    let [root] = &*status_of_roots(&sandbox) else {
        panic!("one root is watched")
    };
    let slow = root["slow_write"].as_str().unwrap();
    assert!(slow.contains("2.json.tmp"), "the longest: {slow}");
    assert!(slow.contains("half of its grace of 6s"), "{slow}");
    assert!(slow.contains("--grace 10s"), "{slow}");
    sandbox.run(["status"]).exit(0).stdout_has("!! ");
    let stopped = watch.stop().exit(0);
    let is_warning = |line: &&str| line.contains("half of its grace of 6s");
    let warnings: Vec<&str> = stopped.stderr.lines().filter(is_warning).collect();
    assert_eq!(warnings.len(), 1, "{}", stopped.stderr);
    assert!(
        warnings[0].contains("1.json.tmp"),
        "the first: {warnings:?}"
    );
}
