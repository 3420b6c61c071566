//! Medians over rounds. Ratios are taken within a round, where both sides met the same machine,
//! and only then put in order: a slow round then shifts no ratio.

/// The middle of the values; the mean of the two middle ones when there is no middle; 0 of none.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => values[half],
        _ => f64::midpoint(values[half - 1], values[half]),
    }
}

/// The median of `above / below`, pair by pair; nothing where there is no pair to divide.
pub(crate) fn median_ratio(above: &[f64], below: &[f64]) -> Option<f64> {
    let pairs = above.iter().zip(below).filter(|(_, below)| **below > 0.0);
    let ratios: Vec<f64> = pairs.map(|(above, below)| above / below).collect();
    (!ratios.is_empty()).then(|| median(ratios))
}

/// The smallest and the largest.
pub(crate) fn range(values: &[f64]) -> (f64, f64) {
    let smallest = values.iter().copied().fold(f64::INFINITY, f64::min);
    let largest = values.iter().copied().fold(0.0, f64::max);
    (smallest.min(largest), largest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_stands_in_the_middle() {
        assert_eq!(median([]), 0.0);
        assert_eq!(median([3.0]), 3.0);
        assert_eq!(median([9.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 9.0]), 3.0);
    }

    #[test]
    fn a_slow_round_shifts_no_ratio() {
        // In the second round the machine was ten times slower, for both.
        let (ours, theirs) = ([400.0, 40.0, 410.0], [100.0, 10.0, 100.0]);
        assert_eq!(median_ratio(&ours, &theirs), Some(4.0));
    }

    #[test]
    fn nothing_is_divided_by_nothing() {
        assert_eq!(median_ratio(&[1.0], &[0.0]), None);
        assert_eq!(median_ratio(&[1.0], &[]), None);
        assert_eq!(median_ratio(&[1.0, 6.0], &[0.0, 2.0]), Some(3.0));
    }

    #[test]
    fn a_range_of_none_is_zero() {
        assert_eq!(range(&[]), (0.0, 0.0));
        assert_eq!(range(&[2.0, 5.0, 3.0]), (2.0, 5.0));
    }
}
