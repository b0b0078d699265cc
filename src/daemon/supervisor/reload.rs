//! Puts other rules in force.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::event_loop::Supervisor;
use super::root_watch::RootWatch;
use crate::core::event::RescanCause;
use crate::daemon::active_roots::{ActiveRoot, ActiveRoots};
use crate::fs::root::Root;
use crate::sys::clock;

impl Supervisor {
    /// Puts other rules in force. Roots that exist in both the old and the new rules keep their locks and their tracked
    /// temps. All watches are re-established, because each watch reports names by all rules.
    pub(super) fn reload(&mut self, active_roots: ActiveRoots) {
        let active_roots = Arc::new(active_roots);
        self.services.active_roots = Arc::clone(&active_roots);
        let old = self.root_watches.drain(..);
        let mut old: HashMap<PathBuf, RootWatch> = old
            .map(|root_watch| (root_watch.active.root.path.clone(), root_watch))
            .collect();
        let mut root_watches = Vec::with_capacity(active_roots.roots.len());
        for active in &active_roots.roots {
            root_watches.push(match old.remove(&active.root.path) {
                Some(known) => (self.with_new_rule(known, active), RescanCause::Periodic),
                None => (
                    RootWatch::new(Arc::clone(active), None),
                    RescanCause::Startup,
                ),
            });
        }
        // This releases the locks of roots that are no longer configured.
        drop(old);
        let shared = &self.services.shared;
        shared.engine.reaper.usage().set_limits(active_roots.limits);
        if let Some(shortest_grace) = active_roots.shortest_grace() {
            shared.temps.set_shortest_grace(shortest_grace);
        }
        let roots = active_roots.roots().cloned().collect();
        self.services.watcher.set_roots(roots);
        shared.set_active_roots(Arc::clone(&active_roots));
        shared.temps.apply_rules(clock::mono(), |path| {
            path.parent()
                .is_some_and(|dir| active_roots.root_of(dir).is_some())
        });
        self.services.probe_all();
        for (mut root_watch, cause) in root_watches {
            root_watch.attach(&mut self.services, cause);
            self.root_watches.push(root_watch);
        }
        self.enforce_all_limits();
    }

    /// Returns the state of a root that has another rule from now on.
    fn with_new_rule(&self, mut root_watch: RootWatch, active: &Arc<ActiveRoot>) -> RootWatch {
        let old = std::mem::replace(&mut root_watch.active, Arc::clone(active));
        if rule_reach(&old.root) != rule_reach(&active.root) {
            // Another orphand may use directories that the rule covers only now.
            // RACE: another process may take the lock before it is taken again below. Worst case: this root waits
            // until that process ends.
            root_watch.lock = None;
        }
        // From here on workers process this root. A root whose old rule was a dry run starts removing files only if
        // its lock can be acquired.
        let id = old.id();
        if id.is_some()
            && rule!("no-more-without-a-lock", root_watch.try_lock(&self.services), without: true)
        {
            active.set_id(id);
        }
        root_watch.dirs.forget();
        root_watch
    }
}

/// Returns the parts of a rule that determine which directories below its root it covers.
fn rule_reach(root: &Root) -> (bool, String) {
    (root.policy.recursive, root.policy.exclude.to_string())
}
