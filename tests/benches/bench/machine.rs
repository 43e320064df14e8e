//! What Linux says of this process.

use std::collections::BTreeMap;
use std::fs;

/// Processor time of all threads so far, in seconds.
pub fn cpu_seconds() -> f64 {
    seconds(&fs::read_to_string("/proc/self/stat").unwrap_or_default())
}

fn seconds(stat: &str) -> f64 {
    // Fields 14 and 15, counted behind the parenthesised name, in ticks of 10 ms.
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks: f64 = after_name.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    ticks / 100.0
}

/// Where processor time went: seconds by the name of the thread, threads of one name together.
pub fn cpu_by_thread() -> BTreeMap<String, f64> {
    let mut shares = BTreeMap::new();
    for task in fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        *shares.entry(name.trim().to_owned()).or_insert(0.0) += seconds(&stat);
    }
    shares.retain(|_, seconds| *seconds > 0.0);
    shares
}

/// The most memory that was resident, in MiB.
pub fn peak_memory_mib() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = peak.and_then(|peak| peak.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or(f64::NAN) / 1024.0
}

/// The value at this share of sorted samples.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let index = ((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1));
    sorted.get(index).copied().unwrap_or(f64::NAN)
}
