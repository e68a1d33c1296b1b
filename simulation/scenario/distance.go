package scenario

// Distance is how many bytes must be put in, left out or replaced to make b of a
// (Levenshtein, "Binary codes capable of correcting deletions, insertions, and
// reversals", 1966): what was probably meant by a name that nothing has.
func Distance(a, b string) int {
	row := make([]int, len(b)+1)
	for k := range row {
		row[k] = k
	}
	for i := range len(a) {
		corner := row[0]
		row[0] = i + 1
		for k := range len(b) {
			replaced := corner
			if a[i] != b[k] {
				replaced++
			}
			corner = row[k+1]
			row[k+1] = min(row[k]+1, row[k+1]+1, replaced)
		}
	}
	return row[len(b)]
}
