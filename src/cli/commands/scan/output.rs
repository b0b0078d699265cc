//! Prints the findings of a scan while it runs.

use std::io;

use orphand::core::sort::sort_by;
use orphand::fs::root::Root;

use super::dir_report::DirReport;
use super::document;
use super::group::{GroupSize, GroupText, ScanGroup};
use super::lines;
use super::listing::Listing;
use super::result::ScanResult;
use crate::cli::output::event_printer::EventPrinter;
use crate::cli::output::groups::{HiddenGroups, MAX_GROUPS};
use crate::cli::runtime::plan::Plan;

/// The size of the text that is written at once, in bytes.
const BLOCK: usize = 64 * 1024;

/// Prints the findings of a scan while it runs. Only the largest groups are kept in memory; for the JSON document, all
/// groups.
pub(super) struct ScanOutput<'p> {
    printer: &'p mut EventPrinter,
    listing: Listing,
    /// Text that is not written yet.
    text: Vec<u8>,
    /// The JSON document has a temp.
    has_temps: bool,
    /// The width of the column of names so far.
    width: usize,
    largest: Vec<ScanGroup>,
    hidden: HiddenGroups,
    group_texts: Vec<GroupText>,
}

impl ScanOutput<'_> {
    pub(super) fn new(printer: &mut EventPrinter, listing: Listing) -> ScanOutput<'_> {
        ScanOutput {
            printer,
            listing,
            text: Vec::new(),
            has_temps: false,
            width: 0,
            largest: Vec::new(),
            hidden: HiddenGroups::default(),
            group_texts: Vec::new(),
        }
    }

    /// Prints the beginning of the document.
    pub(super) fn begin(&mut self, plan: &Plan) -> io::Result<()> {
        if self.listing == Listing::Json {
            self.text = document::head(plan)?;
        }
        Ok(())
    }

    /// Prints the temps of one directory.
    pub(super) fn add(&mut self, dir: &mut DirReport, root: &Root) -> io::Result<()> {
        let is_first = self.listing == Listing::Json && !self.has_temps;
        // The text begins with a comma.
        let text = dir.text.get(usize::from(is_first)..).unwrap_or_default();
        self.has_temps |= !text.is_empty();
        self.text.extend_from_slice(text);
        self.group_texts.append(&mut dir.group_texts);
        for group in dir.groups.drain(..) {
            self.add_group(group);
        }
        self.hidden.merge(&dir.hidden);
        self.width = lines::print_rows(self.printer, root, &dir.rows, self.width)?;
        match self.text.len() >= BLOCK {
            true => self.write(),
            false => Ok(()),
        }
    }

    /// Adds a group. It comes after those of the same size, which are in directories before it.
    fn add_group(&mut self, group: ScanGroup) {
        let size = group.size();
        let at = self.largest.partition_point(|one| one.size() >= size);
        self.largest.insert(at, group);
        if let Some(last) = self.largest.get(MAX_GROUPS) {
            self.hidden.add(&last.sum);
            self.largest.truncate(MAX_GROUPS);
        }
    }

    /// Returns the size that a group must exceed to be shown.
    pub(super) fn min_size(&self) -> GroupSize {
        let last = self.largest.get(MAX_GROUPS - 1);
        last.map_or((0, 0), ScanGroup::size)
    }

    fn write(&mut self) -> io::Result<()> {
        let text = std::mem::take(&mut self.text);
        self.printer.bytes(&text)
    }

    /// Prints the rest of the document.
    pub(super) fn end_document(mut self, result: &ScanResult<'_>) -> io::Result<()> {
        // Groups of the same size keep their order, which is that of their roots and directories.
        sort_by(&mut self.group_texts, |one, other| {
            other.size.cmp(&one.size)
        });
        self.text.extend_from_slice(b"],\"groups\":[");
        for (index, group) in self.group_texts.iter().enumerate() {
            if index > 0 {
                self.text.push(b',');
            }
            self.text.extend_from_slice(&group.text);
        }
        self.text.extend_from_slice(b"],");
        self.text.extend(document::tail(result)?);
        self.text.push(b'\n');
        self.write()
    }

    /// Prints the groups.
    pub(super) fn end_listing(mut self) -> io::Result<()> {
        self.write()?;
        match self.listing {
            Listing::Groups => lines::print_groups(self.printer, &self.largest, &self.hidden),
            _ => Ok(()),
        }
    }
}
