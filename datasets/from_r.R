# Re-enter five public R data sets in NONMEM columns.
#
# Usage: Rscript datasets/from_r.R [OUTDIR]
#
# OUTDIR defaults to the folder of this script. Needs R's own `datasets` package and
# nlme >= 3.1-158 (which has Remifentanil). The sources are under the GPL, version 2 or later;
# see the .md file beside each .csv for citations, units and caveats.

suppressPackageStartupMessages(library(nlme))

script_dir <- function() {
  arg <- grep("^--file=", commandArgs(FALSE), value = TRUE)
  if (length(arg)) dirname(sub("^--file=", "", arg[1])) else "."
}

# Ten significant digits keep products such as 4.02 * 79.6 = 319.992 exact without binary noise.
fmt <- function(x) ifelse(is.na(x), "", trimws(formatC(x, digits = 10, format = "fg", width = 1)))

write_nonmem <- function(frame, name, outdir) {
  cells <- vapply(frame, fmt, character(nrow(frame)))
  lines <- c(paste(names(frame), collapse = ","), apply(cells, 1, paste, collapse = ","))
  con <- file(file.path(outdir, paste0(name, ".csv")), "wb") # binary: LF line ends everywhere
  on.exit(close(con))
  writeLines(lines, con, sep = "\n")
}

label_number <- function(f) as.integer(as.character(f))

code <- function(f, levels, values) {
  out <- values[match(as.character(f), levels)]
  stopifnot(!anyNA(out))
  out
}

# Rows are put in order of ID, then TIME, then dose before observation; `order` is stable.
sort_events <- function(d) d[order(d$ID, d$TIME, d$EVID == 0), ]

theophylline <- function() {
  src <- as.data.frame(datasets::Theoph)
  src$ID <- label_number(src$Subject)
  obs <- with(src, data.frame(ID, TIME = Time, DV = conc, AMT = NA, EVID = 0, CMT = 2, MDV = 0, WT = Wt))
  first <- src[!duplicated(src$ID), ]
  dose <- with(first, data.frame(ID, TIME = 0, DV = NA, AMT = Dose * Wt, EVID = 1, CMT = 1, MDV = 1, WT = Wt))
  sort_events(rbind(dose, obs))
}

indomethacin <- function() {
  src <- as.data.frame(datasets::Indometh)
  ids <- label_number(src$Subject)
  obs <- data.frame(ID = ids, TIME = src$time, DV = src$conc, AMT = NA, EVID = 0, CMT = 1, MDV = 0)
  # The dose is not in the R data; 25 mg is an assumption (see indomethacin.md).
  dose <- data.frame(ID = unique(ids), TIME = 0, DV = NA, AMT = 25, EVID = 1, CMT = 1, MDV = 1)
  sort_events(rbind(dose, obs))
}

phenobarbital <- function() {
  src <- as.data.frame(nlme::Phenobarb)
  is_dose <- !is.na(src$dose)
  stopifnot(xor(is_dose, !is.na(src$conc)))
  out <- data.frame(
    ID = label_number(src$Subject), TIME = src$time, DV = src$conc, AMT = src$dose,
    EVID = as.integer(is_dose), CMT = 1, MDV = as.integer(is_dose), WT = src$Wt,
    APGAR = label_number(src$Apgar), APGARIND = code(src$ApgarInd, c("< 5", ">= 5"), c(0, 1))
  )
  sort_events(out)
}

quinidine <- function() {
  src <- as.data.frame(nlme::Quinidine)
  is_dose <- !is.na(src$dose)
  is_obs <- !is.na(src$conc)
  is_ss <- !is.na(src$interval)
  # No row both doses and observes, and an interval is only ever given with a dose.
  stopifnot(!any(is_dose & is_obs), all(is_dose[is_ss]))
  out <- data.frame(
    ID = label_number(src$Subject), TIME = src$time, DV = src$conc, AMT = src$dose,
    # Rows with neither a dose nor a concentration only carry a change of covariates: EVID 2.
    EVID = ifelse(is_dose, 1, ifelse(is_obs, 0, 2)), CMT = ifelse(is_dose, 1, 2),
    SS = ifelse(is_dose, as.integer(is_ss), NA), II = ifelse(is_ss, src$interval, ifelse(is_dose, 0, NA)),
    MDV = as.integer(!is_obs),
    AGE = src$Age, HTIN = src$Height, WT = src$Weight,
    RACE = code(src$Race, c("Caucasian", "Latin", "Black"), 1:3),
    SMOKE = code(src$Smoke, c("no", "yes"), 0:1),
    ETHANOL = code(src$Ethanol, c("none", "current", "former"), 0:2),
    HEART = code(src$Heart, c("No/Mild", "Moderate", "Severe"), 1:3),
    CREATININE = code(src$Creatinine, c("< 50", ">= 50"), 0:1), GLYCO = src$glyco
  )
  sort_events(out)
}

# One constant-rate infusion per patient: Rate is one value, then 0 from the end of infusion on.
infusion_end <- function(rows) {
  off <- rows$Rate == 0
  stopifnot(rows$Time[1] == 0, !is.unsorted(off), any(off), length(unique(rows$Rate[!off])) == 1)
  end <- rows$Time[off][1]
  stopifnot(isTRUE(all.equal(sum(rows$Amt), rows$Rate[1] * end)))
  end
}

remifentanil <- function() {
  src <- as.data.frame(nlme::Remifentanil)
  first <- src[!duplicated(src$ID), ]
  end <- vapply(split(src, src$ID), infusion_end, numeric(1))[as.character(first$ID)]
  covariates <- function(d) {
    with(d, data.frame(AGE = Age, SEX = code(Sex, c("Female", "Male"), 0:1), HT = Ht, WT = Wt, BSA, LBM))
  }
  dose <- data.frame(
    ID = first$ID, TIME = 0, DV = NA, AMT = first$Rate * end, RATE = first$Rate, EVID = 1, CMT = 1, MDV = 1,
    covariates(first)
  )
  # Rows without a concentration only mark the start and the end of the infusion, now in AMT and RATE.
  seen <- src[!is.na(src$conc), ]
  obs <- data.frame(
    ID = seen$ID, TIME = seen$Time, DV = seen$conc, AMT = NA, RATE = NA, EVID = 0, CMT = 1, MDV = 0,
    covariates(seen)
  )
  sort_events(rbind(dose, obs))
}

main <- function() {
  stopifnot(packageVersion("nlme") >= "3.1.158")
  args <- commandArgs(trailingOnly = TRUE)
  outdir <- if (length(args)) args[1] else script_dir()
  makers <- list(
    theophylline = theophylline, indomethacin = indomethacin, phenobarbital = phenobarbital,
    quinidine = quinidine, remifentanil = remifentanil
  )
  for (name in names(makers)) write_nonmem(makers[[name]](), name, outdir)
}

main()
