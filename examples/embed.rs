//! A program that embeds orphand: watches a directory, and prints the events until its input ends.
//!
//! ```text
//! cargo run --no-default-features --example embed -- DIR [GRACE]
//! ```
//!
//! `GRACE` is the number of seconds for which a temp must be unused. On a terminal, Ctrl-D ends the program.

use std::error::Error;
use std::time::Duration;
use std::{env, io, thread};

use orphand::{Event, Graces, Policy, Watcher};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args_os().skip(1);
    let dir = args.next().ok_or("usage: embed DIR [GRACE]")?;
    let mut policy = Policy::default();
    if let Some(grace) = args.next() {
        let seconds = grace.to_str().unwrap_or_default().parse()?;
        policy.grace = Graces::both(Duration::try_from_secs_f64(seconds)?);
    }
    let watcher = Watcher::builder().root(dir, policy).start()?;

    let stopper = watcher.stopper();
    thread::spawn(move || {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        stopper.stop();
    });

    // The channel closes after the summary.
    for event in watcher.events() {
        print(&event);
    }
    Ok(())
}

fn print(event: &Event) {
    match event {
        Event::Ready { roots, .. } => println!("watching {roots:?}"),
        Event::Reaped(temp) => println!("removed {:?}", temp.subject.path),
        Event::Quarantined { disposed, id, .. } => {
            let id = id.as_deref().unwrap_or_default();
            println!(
                "moved {:?} to the quarantine as {id}",
                disposed.subject.path
            );
        }
        Event::Kept {
            subject, reason, ..
        } => println!("kept {:?}: {reason}", subject.path),
        Event::Failed { subject, error, .. } => println!("failed {:?}: {error}", subject.path),
        Event::Summary(sum) => println!("{} removed, {} kept", sum.reaped, sum.kept),
        _ => {}
    }
}
