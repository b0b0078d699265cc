//! Explores all states of a model, breadth first. stateright would work too, but has forty dependencies, among them a
//! web server.

use std::collections::HashSet;
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
    let mut known = HashSet::with_hasher(BuildHasherDefault::<Quick>::default());
    known.insert(model.start());
    // Each state with the index of its predecessor and the action between them.
    let mut states = vec![(model.start(), None)];
    let mut next = Vec::new();
    let mut at = 0;
    while let Some((state, _)) = states.get(at).copied() {
        model.next(&state, &mut next);
        for (action, then) in next.drain(..) {
            match then {
                Ok(then) if known.insert(then) => {
                    visit(&state, &then);
                    states.push((then, Some((at, action))));
                }
                Ok(_) => {}
                Err(loss) => {
                    let mut trace = vec![action];
                    while let Some((before, action)) = states[at].1 {
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
    Ok(states.len())
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

    fn write_u8(&mut self, byte: u8) {
        self.0 = (self.0.rotate_left(5) ^ u64::from(byte)).wrapping_mul(0x517c_c1b7_2722_0a95);
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
