/* Medians of values of one type: included once for each, with REAL, ORDINAL, NAMED, LARGEST
 * and INFINITE. */
#define MEDIANS TOGETHER(ORDINAL)
#define ORDINALS NAMED(ordinals)

/* The integer that is to others as this number is to theirs, and back again. */
DEVICE ORDINAL NAMED(ordinal)(ORDINAL bits) { return bits < 0 ? bits ^ LARGEST : bits; }

DEVICE REAL NAMED(number)(ORDINAL place)
{
    const ORDINAL bits = NAMED(ordinal)(place);
    REAL value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Numbers as integers; what is not good becomes the largest of all, which is no number's. */
DEVICE ORDINALS NAMED(placed)(const REAL *numbers, const uint8_t *usable)
{
    ORDINALS bits, good;
    memcpy(&bits, numbers, sizeof bits);
    for (int k = 0; k < MEDIANS; k++) OF(good, k) = usable[k];
    const ORDINALS zero = {0}, largest = zero + LARGEST;
    const ORDINALS is_finite = (bits & LARGEST) < zero + INFINITE;
    return CHOSEN(is_finite & (good != 0), CHOSEN(bits < 0, bits ^ LARGEST, bits), largest);
}

/* Put the points of n_medians medians, from number `item` on, side by side. */
DEVICE void NAMED(gather)(const REAL *data, const uint8_t *good, int64_t item, int n_medians,
                          int n, int64_t n_inner, ORDINALS *values)
{
    int64_t first[MEDIANS];
    for (int k = 0; k < MEDIANS; k++) {
        const int64_t median = k < n_medians ? item + k : item; /* none is left without values */
        first[k] = median / n_inner * n * n_inner + median % n_inner;
    }
    const int are_neighbours = first[MEDIANS - 1] - first[0] == MEDIANS - 1;
    EACH_POINT(i, n)
    {
        REAL numbers[MEDIANS];
        uint8_t usable[MEDIANS];
        for (int k = 0; k < MEDIANS; k++) {
            const int64_t at = (are_neighbours ? first[0] + k : first[k]) + i * n_inner;
            numbers[k] = data[at];
            usable[k] = good == 0 || good[at];
        }
        values[i] = NAMED(placed)(numbers, usable);
    }
}

/* Find the medians of as many items as are found together, from `item` on. */
DEVICE void NAMED(medians)(const REAL *data, const uint8_t *good, int64_t item, int64_t n_items,
                           int n, int64_t n_inner, ORDINALS *values, REAL *medians)
{
    const int n_medians = n_items - item < MEDIANS ? (int)(n_items - item) : MEDIANS;
    const ORDINALS zero = {0}, largest = zero + LARGEST;
    NAMED(gather)(data, good, item, n_medians, n, n_inner, values);
    ORDINALS n_good = zero, low = largest, turned_high = largest; /* ~ turns the order round */
    EACH_POINT(i, n)
    {
        const ORDINALS usable = values[i] != largest, turned = CHOSEN(usable, ~values[i], largest);
        n_good = n_good + COUNTED(usable);
        low = CHOSEN(values[i] < low, values[i], low);
        turned_high = CHOSEN(turned < turned_high, turned, turned_high);
    }
    n_good = NAMED(sum_of_ordinals)(n_good);

    /* the lower of the two in the middle has at most `rank` values below it */
    const ORDINALS rank = (n_good - 1) / 2;
    low = NAMED(least_of_ordinals)(low);
    ORDINALS high = ~NAMED(least_of_ordinals)(turned_high);
    while (NAMED(any_of_ordinals)(low < high)) {
        const ORDINALS middle = (low & high) + ((low ^ high) >> 1); /* their mean, rounded down */
        ORDINALS count = zero;
        EACH_POINT(i, n) { count = count + COUNTED(values[i] <= middle); }
        count = NAMED(sum_of_ordinals)(count);
        high = CHOSEN(count > rank, middle, high);
        low = CHOSEN(count > rank, low, middle + 1);
        low = CHOSEN(count == rank + 1, high, low); /* the largest that is not above `high` */
    }

    /* the lower one, and the upper one: the same again, or the smallest beyond it */
    ORDINALS turned_below = largest, above = largest, count = zero;
    EACH_POINT(i, n)
    {
        const ORDINALS inside = CHOSEN(values[i] <= high, ~values[i], largest);
        const ORDINALS beyond = CHOSEN(values[i] > high, values[i], largest);
        count = count + COUNTED(values[i] <= high);
        turned_below = CHOSEN(inside < turned_below, inside, turned_below);
        above = CHOSEN(beyond < above, beyond, above);
    }
    const ORDINALS below = ~NAMED(least_of_ordinals)(turned_below);
    above = NAMED(least_of_ordinals)(above);
    above = CHOSEN(NAMED(sum_of_ordinals)(count) > n_good / 2, below, above);
    for (int k = 0; k < n_medians; k++)
        medians[item + k] = OF(n_good, k) == 0
                                ? (REAL)NAN
                                : (REAL)0.5 * NAMED(number)(OF(below, k))
                                      + (REAL)0.5 * NAMED(number)(OF(above, k));
}

#undef MEDIANS
#undef ORDINALS
