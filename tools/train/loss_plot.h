#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace monoid {

/// A curve of (step, loss) points.
struct LossCurve {
  std::string label;
  std::vector<std::pair<double, double>> points;
};

/// A self-contained SVG of loss in nats over steps: curves with one point are a dot. Axes end at round numbers.
std::string loss_plot(const std::string& title, const std::vector<LossCurve>& curves);

/// Draws a log.jsonl as loss.svg: training and, where it was evaluated, validation loss.
void write_loss_plot(const std::filesystem::path& log, const std::filesystem::path& svg, const std::string& title);

}  // namespace monoid
