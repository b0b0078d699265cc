//! Explores all states of a model, breadth first. stateright would work too, but has forty dependencies, among them a
//! web server.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// The description of a loss.
pub(crate) type Loss = &'static str;

/// The possible actions in a state, each with the resulting state or the loss.
pub(crate) type Transitions<M> = Vec<(
    <M as Explorable>::Action,
    Result<<M as Explorable>::State, Loss>,
)>;

/// A loss, and the actions that lead to it.
pub(crate) type LossTrace<M> = (Loss, Vec<<M as Explorable>::Action>);

/// A model with a finite number of states.
pub(crate) trait Explorable {
    type State: Copy + Eq + Hash;
    type Action: Copy + fmt::Display;

    /// Returns the first state.
    fn start(&self) -> Self::State;

    /// Adds the possible actions in this state.
    fn next(&self, state: &Self::State, next: &mut Transitions<Self>);
}

/// Visits every reachable state, the nearest first, and returns their number. The trace to the first loss is therefore
/// the shortest. `visit` is called with each state that is reached for the first time and the state before it.
pub(crate) fn explore<M: Explorable>(
    model: &M,
    visit: &mut dyn FnMut(&M::State, &M::State),
) -> Result<usize, LossTrace<M>> {
    let mut known = KnownStates::new(model.start());
    let mut next = Vec::new();
    let mut at = 0;
    while let Some(state) = known.states.get(at).map(|known| known.state) {
        model.next(&state, &mut next);
        for (action, then) in next.drain(..) {
            match then {
                Ok(then) if known.insert(then, Some((at, action))) => visit(&state, &then),
                Ok(_) => {}
                Err(loss) => {
                    let mut trace = vec![action];
                    while let Some((before, action)) = known.states[at].reached_by {
                        trace.push(action);
                        at = before;
                    }
                    trace.reverse();
                    return Err((loss, trace));
                }
            }
        }
        at += 1;
    }
    Ok(known.states.len())
}

/// The states that were reached, in this order. A set of states would hash each of them again whenever it grows, and
/// without optimization most of the time of an exploration is the hashing.
struct KnownStates<S, A> {
    states: Vec<KnownState<S, A>>,
    /// The index of the last state with this hash.
    last: HashMap<u64, usize, BuildHasherDefault<SameHash>>,
}

struct KnownState<S, A> {
    state: S,
    /// The index of the predecessor, and the action between them.
    reached_by: Option<(usize, A)>,
    /// The index of an earlier state with the same hash.
    same_hash: Option<usize>,
}

impl<S: Eq + Hash, A> KnownStates<S, A> {
    fn new(start: S) -> KnownStates<S, A> {
        let mut known = KnownStates {
            states: Vec::new(),
            last: HashMap::default(),
        };
        known.insert(start, None);
        known
    }

    /// Adds a state. Returns false if it is known.
    fn insert(&mut self, state: S, reached_by: Option<(usize, A)>) -> bool {
        let mut hash = Quick::default();
        state.hash(&mut hash);
        let last = self.last.entry(hash.finish());
        let index = self.states.len();
        let mut same_hash = None;
        match last {
            Entry::Vacant(last) => _ = last.insert(index),
            Entry::Occupied(mut last) => {
                let mut at = Some(*last.get());
                while let Some(known) = at.map(|at| &self.states[at]) {
                    if known.state == state {
                        return false;
                    }
                    at = known.same_hash;
                }
                same_hash = Some(last.insert(index));
            }
        }
        self.states.push(KnownState {
            state,
            reached_by,
            same_hash,
        });
        true
    }
}

/// Returns a line for each action.
pub(crate) fn format_trace(trace: &[impl fmt::Display]) -> String {
    let lines = trace.iter().map(|action| format!("\n  {action}"));
    lines.collect()
}

/// Asserts that a loss is found without `check`; or, if other checks cover it, only without all of these. A list of no
/// checks means that the model shows no loss without this one.
pub(crate) fn assert_needed<M: Explorable + fmt::Debug, C: fmt::Debug>(
    check: &'static C,
    covered_by: Option<(&str, &'static [C])>,
    loss_without: impl Fn(&'static [C]) -> Option<(M, LossTrace<M>)>,
) {
    match (loss_without(std::slice::from_ref(check)), covered_by) {
        (Some((_, (loss, trace))), None) => {
            println!("without {check:?}: {loss}, after {} actions", trace.len());
        }
        (None, Some((why, all))) => {
            println!("without {check:?} nothing is lost: {why}");
            assert!(all.is_empty() || loss_without(all).is_some(), "{all:?}");
        }
        (None, None) => panic!("nothing is lost without {check:?}: it has no effect"),
        (Some((model, (loss, trace))), Some(_)) => panic!(
            "{check:?} is not covered by others: {loss}: {model:?}{}",
            format_trace(&trace)
        ),
    }
}

/// A hash for millions of small numbers, not secure against attacks.
#[derive(Default)]
struct Quick(u64);

impl Hasher for Quick {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u8(*byte));
    }

    // Without calls, which are not inlined in a test build.
    #[allow(clippy::manual_rotate)]
    fn write_u8(&mut self, byte: u8) {
        self.0 =
            (((self.0 << 5) | (self.0 >> 59)) ^ byte as u64).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    fn write_isize(&mut self, discriminant: isize) {
        self.write_u8(discriminant as u8);
    }

    fn write_usize(&mut self, length: usize) {
        self.write_u8(length as u8);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The hash of a key that is a hash.
#[derive(Default)]
struct SameHash(u64);

impl Hasher for SameHash {
    fn write(&mut self, _: &[u8]) {
        unreachable!("the keys are u64");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
