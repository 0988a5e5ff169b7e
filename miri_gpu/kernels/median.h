/* The median of values of one type: included once for each, with REAL, ORDINAL, NAMED, LARGEST. */

/* The integer that is to others as this number is to theirs, and back again. */
DEVICE ORDINAL NAMED(ordinal)(ORDINAL bits) { return bits < 0 ? bits ^ LARGEST : bits; }

DEVICE REAL NAMED(number)(ORDINAL place)
{
    const ORDINAL bits = NAMED(ordinal)(place);
    REAL value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

DEVICE REAL NAMED(median_of)(const REAL *data, const uint8_t *good, int n, int64_t stride,
                             ORDINAL *values)
{
    /* what is not good becomes the largest integer of all, which is no number's */
    int n_bad = 0;
    ORDINAL low = LARGEST, turned_high = LARGEST; /* ~ turns the order round */
    EACH_POINT(i, n)
    {
        ORDINAL bits;
        memcpy(&bits, &data[i * stride], sizeof bits);
        const int usable = isfinite(data[i * stride]) && (!good || good[i * stride]);
        const ORDINAL value = NAMED(ordinal)(bits);
        values[i] = usable ? value : LARGEST;
        n_bad += !usable;
        low = usable && value < low ? value : low;
        turned_high = usable && ~value < turned_high ? ~value : turned_high;
    }
    const int n_good = n - sum_counted(n_bad);
    if (n_good == 0)
        return (REAL)NAN;

    /* the lower of the two in the middle has at most `rank` values below it */
    const int rank = (n_good - 1) / 2;
    low = (ORDINAL)smallest_found(low);
    ORDINAL high = (ORDINAL)~smallest_found(turned_high);
    while (low < high) {
        const ORDINAL middle = (low & high) + ((low ^ high) >> 1); /* their mean, rounded down */
        int count = 0;
        EACH_POINT(i, n)
        {
            count += values[i] <= middle;
        }
        count = sum_counted(count);
        if (count > rank)
            high = middle;
        else
            low = middle + 1;
        if (count == rank + 1)
            break; /* the largest that is not above `high` */
    }

    /* the lower one, and the upper one: the same again, or the smallest beyond it */
    ORDINAL turned_below = LARGEST, above = LARGEST;
    int count = 0;
    EACH_POINT(i, n)
    {
        const ORDINAL inside = values[i] <= high ? ~values[i] : LARGEST;
        const ORDINAL beyond = values[i] > high ? values[i] : LARGEST;
        count += values[i] <= high;
        turned_below = inside < turned_below ? inside : turned_below;
        above = beyond < above ? beyond : above;
    }
    const ORDINAL below = (ORDINAL)~smallest_found(turned_below);
    above = (ORDINAL)smallest_found(above);
    if (sum_counted(count) > n_good / 2)
        above = below;
    return (REAL)0.5 * NAMED(number)(below) + (REAL)0.5 * NAMED(number)(above);
}
