package rtc

// The proleptic Gregorian calendar, in days since 1970-01-01. Years begin in March,
// so that the leap day is the last one, and come in eras of 400 years.

const (
	daysPerEra    = 146097
	daysToEpoch   = 719468 // from 0000-03-01
	secondsPerDay = 86400
)

// dayNumber returns the days from 1970-01-01 to a date. Days and months beyond
// their range carry over.
func dayNumber(year, month, day int64) int64 {
	year += floorDiv(month-1, 12)
	month = (month-1)%12 + 1
	if month < 1 {
		month += 12
	}
	if month <= 2 {
		year--
		month += 12
	}
	era := floorDiv(year, 400)
	y := year - 400*era
	return era*daysPerEra + 365*y + y/4 - y/100 + (153*(month-3)+2)/5 + day - 1 - daysToEpoch
}

// date is the inverse of dayNumber.
func date(n int64) (year, month, day int64) {
	n += daysToEpoch
	era := floorDiv(n, daysPerEra)
	d := n - era*daysPerEra
	y := (d - d/1460 + d/36524 - d/146096) / 365
	d -= 365*y + y/4 - y/100
	m := (5*d + 2) / 153
	day = d - (153*m+2)/5 + 1
	year, month = era*400+y, m+3
	if month > 12 {
		year, month = year+1, month-12
	}
	return year, month, day
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}
