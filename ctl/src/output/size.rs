//! Text form of sizes. Knows bytes only.

/// Formats a number of bytes: `20.0 KiB`.
pub(crate) fn format_size(bytes: u64) -> String {
    let mut whole = bytes;
    let mut rest = 0;
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    while whole >= 1024 && unit + 1 < units.len() {
        rest = whole % 1024;
        whole /= 1024;
        unit += 1;
    }
    if unit == 0 {
        format!("{whole} B")
    } else {
        format!("{whole}.{} {}", rest * 10 / 1024, units[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_one_decimal() {
        for (bytes, text) in
            [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (2_147_483_648, "2.0 GiB")]
        {
            assert_eq!(format_size(bytes), text);
        }
    }
}
