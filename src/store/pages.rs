//! LMDB's file, read without LMDB, page by page, and believed in nothing.
//!
//! LMDB follows what stands in a page wherever it points, past the end of the file if need be. So
//! what may be damaged is looked over here. The format is that of data version 1: pages of a fixed
//! size, the first two of them metas; a page has a head of 16 bytes, then offsets of its nodes.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::StoreError;
use super::record::{u16_at, u32_at, u64_at};

const MAGIC: u32 = 0xBEEF_C0DE;
const VERSION: u32 = 1;
const PAGE_HEAD: usize = 16;
const NODE_HEAD: usize = 8;
/// Flags of a page.
const BRANCH: u16 = 1;
const LEAF: u16 = 2;
const OVERFLOW: u16 = 4;
const META: u16 = 8;
/// Flags of a node: its value stands on pages of its own; it is a table.
const BIG: u16 = 1;
const TABLE: u16 = 2;
/// Where the root of a tree stands in what describes the tree, and how long that is.
const ROOT: usize = 40;
const TREE: usize = 48;
/// The root of an empty tree.
const NONE: u64 = u64::MAX;

/// What is wrong, and on which page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// The page.
    pub(super) page: u64,
    /// What is wrong with it.
    pub(super) why: &'static str,
}

/// An entry of a leaf.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    pub(super) key: &'a [u8],
    flags: u16,
    /// The value, or the number of its first page.
    data: &'a [u8],
    length: usize,
}

/// Whom entries are shown to, in order.
type Visit<'a> = &'a mut dyn FnMut(&Entry<'_>);

/// The file, and what its newest meta says.
#[derive(Debug)]
pub(super) struct Pages {
    file: File,
    path: PathBuf,
    size: usize,
    /// Above every page in use.
    end: u64,
    free: u64,
    main: u64,
}

impl Pages {
    /// Reads the metas.
    ///
    /// # Errors
    /// Where the file cannot be read, is none of LMDB's, or is shorter than it says.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let unusable = |why: String| StoreError::Unusable { file: path.to_owned(), why };
        let damaged = |why: &str| StoreError::Damaged { file: path.to_owned(), why: why.into() };
        let file = File::open(path).map_err(|error| unusable(error.to_string()))?;
        let length = file.metadata().map_err(|error| unusable(error.to_string()))?.len();
        let mut first = [0; 152];
        file.read_exact_at(&mut first, 0).map_err(|_| damaged("it is no data file"))?;
        let size = u32_at(&first, 40) as usize;
        if !(1_024..=65_536).contains(&size) || !size.is_power_of_two() {
            return Err(damaged("its first page is no meta page"));
        }
        let mut second = first;
        file.read_exact_at(&mut second, size as u64).map_err(|_| damaged("it is cut short"))?;
        for meta in [&first, &second] {
            let is_meta = u16_at(meta, 10) & META != 0 && u32_at(meta, 16) == MAGIC;
            if !is_meta || u32_at(meta, 40) as usize != size {
                return Err(damaged("a meta page of it is no meta page"));
            }
            if u32_at(meta, 20) != VERSION {
                return Err(unusable(format!("it has data version {}", u32_at(meta, 20))));
            }
        }
        let newer = if u64_at(&second, 144) > u64_at(&first, 144) { second } else { first };
        let end = u64_at(&newer, 136).saturating_add(1);
        // The last pages may have been free ever since the file had its length.
        let pages = Self {
            file,
            path: path.to_owned(),
            size,
            end: end.min(length / size as u64),
            free: u64_at(&newer, 40 + ROOT),
            main: u64_at(&newer, 40 + TREE + ROOT),
        };
        let room = u64_at(&newer, 32).max(length);
        if end < 2 || end.checked_mul(size as u64).is_none_or(|bytes| bytes > room) {
            return Err(damaged("its meta page names a last page that cannot be"));
        }
        Ok(pages)
    }

    /// Looks at the upper pages of all trees, so many at most.
    pub(super) fn glance(&self, most: usize) -> Result<(), StoreError> {
        let (mut walk, mut seen) = (Walk::new(self, most), HashSet::new());
        let tables = walk.tables(&mut seen);
        for root in tables.into_values().chain([self.free]) {
            walk.tree(root, &mut seen, &mut |_| {});
        }
        self.sound(&walk.faults)
    }

    /// Looks at all pages but those that hold nothing except a value.
    pub(super) fn survey(&self) -> Result<(), StoreError> {
        self.glance(usize::MAX)
    }

    fn sound(&self, faults: &[Fault]) -> Result<(), StoreError> {
        let Some(first) = faults.first() else { return Ok(()) };
        let more = match faults.len() - 1 {
            0 => String::new(),
            more => format!(", and {more} more pages"),
        };
        let why = format!("page {}: {}{more}", first.page, first.why);
        Err(StoreError::Damaged { file: self.path.clone(), why })
    }

    /// The value of an entry.
    pub(super) fn value(&self, entry: &Entry<'_>) -> Result<Vec<u8>, Fault> {
        if entry.flags & BIG == 0 {
            return Ok(entry.data.to_vec());
        }
        let first = u64_at(entry.data, 0);
        let fault = |why| Fault { page: first, why };
        let pages = (PAGE_HEAD + entry.length).div_ceil(self.size) as u64;
        if first < 2 || first.checked_add(pages).is_none_or(|last| last > self.end) {
            return Err(fault("a value is said to stand here, outside of the file"));
        }
        let mut value = vec![0; PAGE_HEAD + entry.length];
        self.file
            .read_exact_at(&mut value, first * self.size as u64)
            .map_err(|_| fault("cannot be read"))?;
        if u64_at(&value, 0) != first || u16_at(&value, 10) & OVERFLOW == 0 {
            return Err(fault("holds no value, though an entry says so"));
        }
        Ok(value.split_off(PAGE_HEAD))
    }

    /// A page of a tree, its nodes found to be within it.
    fn page(&self, number: u64) -> Result<Vec<u8>, Fault> {
        let fault = |why| Fault { page: number, why };
        if number < 2 || number >= self.end {
            return Err(fault("is outside of the file"));
        }
        let mut page = vec![0; self.size];
        self.file
            .read_exact_at(&mut page, number * self.size as u64)
            .map_err(|_| fault("cannot be read"))?;
        let (flags, lower) = (u16_at(&page, 10), usize::from(u16_at(&page, 12)));
        let upper = usize::from(u16_at(&page, 14));
        if u64_at(&page, 0) != number {
            return Err(fault("has another page's number"));
        }
        if ![BRANCH, LEAF].contains(&(flags & (BRANCH | LEAF | OVERFLOW | META))) {
            return Err(fault("is of no kind a tree has"));
        }
        if lower < PAGE_HEAD || lower % 2 != 0 || lower > upper || upper > self.size {
            return Err(fault("says it is fuller than it can be"));
        }
        let nodes = (lower - PAGE_HEAD) / 2;
        for index in 0..nodes {
            self.node(&page, index).ok_or_else(|| fault("has a node that is not within it"))?;
        }
        Ok(page)
    }

    /// One node, if it lies within its page.
    fn node<'a>(&self, page: &'a [u8], index: usize) -> Option<Entry<'a>> {
        let at = usize::from(u16_at(page, PAGE_HEAD + index * 2));
        let (upper, leaf) = (usize::from(u16_at(page, 14)), u16_at(page, 10) & LEAF != 0);
        let node = page.get(at..).filter(|node| node.len() >= NODE_HEAD && at >= upper)?;
        let (flags, key) = (u16_at(node, 4), usize::from(u16_at(node, 6)));
        let key = NODE_HEAD..NODE_HEAD + key;
        let length = u32_at(node, 0) as usize;
        let held = match (leaf, flags & BIG != 0) {
            (false, _) => 0,
            (true, true) => 8,
            (true, false) => length,
        };
        let data = key.end..key.end.checked_add(held)?;
        let data = node.get(data)?;
        Some(Entry { key: node.get(key)?, flags, data, length })
    }
}

/// A walk over trees: what it found wrong, and how many pages it may still look at.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    pages: &'a Pages,
    left: usize,
    /// What was wrong.
    pub(super) faults: Vec<Fault>,
}

impl<'a> Walk<'a> {
    /// A walk over so many pages at most.
    pub(super) const fn new(pages: &'a Pages, most: usize) -> Self {
        Self { pages, left: most, faults: Vec::new() }
    }

    /// The roots of all tables, by name.
    pub(super) fn tables(&mut self, seen: &mut HashSet<u64>) -> BTreeMap<String, u64> {
        let mut tables = BTreeMap::new();
        self.tree(self.pages.main, seen, &mut |entry| {
            if entry.flags & TABLE != 0 && entry.data.len() == TREE {
                let name = String::from_utf8_lossy(entry.key).into_owned();
                tables.insert(name, u64_at(entry.data, ROOT));
            }
        });
        tables
    }

    /// Shows every entry of a tree, in order. What cannot be read is left out and named in
    /// `faults`. No page is looked at twice, so damage leads into no circle.
    pub(super) fn tree(&mut self, root: u64, seen: &mut HashSet<u64>, visit: Visit<'_>) {
        let mut next = VecDeque::from_iter([root].into_iter().filter(|&root| root != NONE));
        while let Some(number) = next.pop_front() {
            if self.left == 0 {
                return;
            }
            self.left -= 1;
            if !seen.insert(number) {
                self.faults.push(Fault { page: number, why: "belongs to two places" });
                continue;
            }
            let page = match self.pages.page(number) {
                Ok(page) => page,
                Err(fault) => {
                    self.faults.push(fault);
                    continue;
                }
            };
            let nodes = (usize::from(u16_at(&page, 12)) - PAGE_HEAD) / 2;
            let nodes = (0..nodes).filter_map(|index| self.pages.node(&page, index));
            if u16_at(&page, 10) & LEAF != 0 {
                nodes.for_each(|entry| visit(&entry));
            } else {
                // The higher half of a child's number stands where a leaf has its flags.
                next.extend(nodes.map(|node| node.length as u64 | u64::from(node.flags) << 32));
            }
        }
    }
}
